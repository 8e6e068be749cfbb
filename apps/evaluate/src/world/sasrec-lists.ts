/**
 * SASRec on the world's log, the dense baseline: one sequence of clicked items a user, all scenarios in it, on the engine and the
 * clicks that OneMall has. Its item rows begin as content embeddings, so that it knows the same features; a room that opened after
 * the cut keeps that start.
 */
import path from 'node:path';
import { RunFolder } from '../sequences/adapters/run-folder.ts';
import { SASREC, SasrecRun } from '../sequences/models/sasrec-run.ts';
import { clickSequences, clicksBefore } from './click-sequences.ts';
import type { AskedRequest, ListModel } from './lists.ts';
import type { ItemVectors } from './semantic-ids.ts';
import { candidatesOf, type Popularity, topOf } from './simple-lists.ts';
import type { WorldLog } from './world-log.ts';

/** Length of an item's first row: of the order that a trained one has. */
const START_LENGTH = 0.5;

/** Where a baseline is trained. */
export interface SequenceRun {
  folder: string;
  seed: number;
  print: (line: string) => void;
}

/** Trains, or goes on with, SASRec on the clicks of these rows. */
export async function trainSasrec(
  log: WorldLog,
  vectors: ItemVectors,
  positives: Int32Array,
  { folder, seed, print }: SequenceRun,
): Promise<SasrecScores> {
  const set = clickSequences(log, positives);
  const starts = contentRows(vectors, 0, set.numItems);
  const run = await SasrecRun.start(set, seed, { ...SASREC, dim: vectors.dim });
  await run.beginWithItems(starts);
  await run.train(new RunFolder(path.join(folder, 'sasrec')), (line, passing) => {
    if (!passing) print(`sasrec: ${line}`);
  });
  return new SasrecScores(log, vectors, run, await run.itemVectors());
}

/** First rows of items [from, to): content embeddings of one length. float32 [to - from, dim] */
function contentRows(vectors: ItemVectors, from: number, to: number): Float32Array {
  const rows = new Float32Array((to - from) * vectors.dim);
  for (let item = from; item < to; item++) {
    const content = vectors.contentOf(item);
    const scale = START_LENGTH / (Math.hypot(...content) || 1);
    rows.set(
      content.map((x) => x * scale),
      (item - from) * vectors.dim,
    );
  }
  return rows;
}

/** What SASRec thinks of a request's candidates; one request at a time is kept, since two lists ask for it. */
export class SasrecScores {
  readonly #log: WorldLog;
  readonly #vectors: ItemVectors;
  readonly #run: SasrecRun;
  #items: Float32Array;
  #newest: { request: number; hidden: Promise<Float32Array | null> } | null = null;

  constructor(log: WorldLog, vectors: ItemVectors, run: SasrecRun, items: Float32Array) {
    this.#log = log;
    this.#vectors = vectors;
    this.#run = run;
    this.#items = items;
  }

  /** A product for each candidate; zeros for a user who clicked nothing yet. */
  async of(request: number, candidates: Int32Array): Promise<Float64Array> {
    if (this.#newest?.request !== request) this.#newest = { request, hidden: this.#hidden(request) };
    const hidden = await this.#newest.hidden;
    const scores = new Float64Array(candidates.length);
    if (!hidden) return scores;
    this.#takeNewRooms();
    candidates.forEach((item, c) => {
      for (let d = 0, at = item * hidden.length; d < hidden.length; d++)
        scores[c]! += hidden[d]! * this.#items[at + d]!;
    });
    return scores;
  }

  async #hidden(request: number): Promise<Float32Array | null> {
    const history = clicksBefore(this.#log, request, this.#run.numItems);
    return history.length === 0 ? null : this.#run.hiddenAfter(history);
  }

  #takeNewRooms(): void {
    const before = this.#items.length / this.#vectors.dim;
    const { numItems } = this.#log;
    if (numItems === before) return;
    const grown = new Float32Array(numItems * this.#vectors.dim);
    grown.set(this.#items);
    grown.set(contentRows(this.#vectors, before, numItems), this.#items.length);
    this.#items = grown;
  }

  close(): Promise<void> {
    return this.#run.trainer.close();
  }
}

/** SASRec's list, alone or with log popularity as of the request. */
export class SasrecLists implements ListModel {
  readonly name: string;
  readonly #log: WorldLog;
  readonly #scores: SasrecScores;
  readonly #popularity: Popularity | null;

  constructor(name: string, log: WorldLog, scores: SasrecScores, popularity: Popularity | null) {
    this.name = name;
    this.#log = log;
    this.#scores = scores;
    this.#popularity = popularity;
  }

  async rank({ request, scenario }: AskedRequest, depth: number): Promise<Int32Array> {
    const candidates = candidatesOf(this.#log, scenario);
    const scores = await this.#scores.of(request, candidates);
    const popularity = this.#popularity;
    if (popularity)
      candidates.forEach((item, c) => {
        scores[c]! += Math.log(1 + popularity.of(item));
      });
    return topOf(scores, depth).map((c) => candidates[c]!);
  }
}
