/** SASRec's lists on the world's log. A room that opened after the cut keeps its content embedding as vector. */
import type { SasrecRun } from '../../sequences/models/sasrec-run.ts';
import { candidatesOf, type Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import { clicksBefore } from '../samples/click-sequences.ts';
import type { ItemVectors } from '../samples/semantic-ids.ts';
import type { AskedRequest, ListModel } from './list-model.ts';
import { topOf } from './simple-lists.ts';

/** Length of an item's first row: of the order that a trained one has. */
const START_LENGTH = 0.5;

/** First rows of items [from, to): content embeddings of one length. float32 [to - from, dim] */
export function contentRows(vectors: ItemVectors, from: number, to: number): Float32Array {
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
