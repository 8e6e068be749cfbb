/**
 * TIGER's form (Rajput et al. 2023) on the world's log: three residual k-means levels of content and a number that tells the items
 * of a SID apart, a plain softmax over all codes, no contrast; its own tokenizer, on the engine and the clicks that OneMall has.
 */
import path from 'node:path';
import { RunFolder } from '../sequences/adapters/run-folder.ts';
import { type BeamGround, GeneratorRun } from '../sequences/models/generator-run.ts';
import { TIGER } from '../sequences/models/recipes.ts';
import { makeTokenizer, type Tokenizer } from '../sequences/models/tokens.ts';
import { LENGTH } from '../sequences/shapes.ts';
import { SidTrie } from '../sequences/stages/sid-trie.ts';
import { clickSequences, clicksBefore } from './click-sequences.ts';
import type { AskedRequest, ListModel } from './lists.ts';
import type { SequenceRun } from './sasrec-lists.ts';
import type { ItemVectors } from './semantic-ids.ts';
import { candidatesOf } from './simple-lists.ts';
import type { WorldLog } from './world-log.ts';

/** A request is asked alone. */
const BUCKETS = [{ length: LENGTH, rows: 1 }] as const;

/** Trains, or goes on with, TIGER's form on the clicks of these rows. @param depth longest list that is asked for */
export async function trainTiger(
  log: WorldLog,
  vectors: ItemVectors,
  positives: Int32Array,
  depth: number,
  { folder, seed, print }: SequenceRun,
): Promise<TigerLists> {
  const set = clickSequences(log, positives);
  const tokenizer = await makeTokenizer(contents(vectors, 0, set.numItems), TIGER.tokenForm, seed);
  const { tokens } = tokenizer;
  print(
    `tiger: codes ${tokens.numCodes.join(' x ')}, ${(100 * tokens.conflict).toFixed(1)} % of the items share a SID`,
  );
  const run = await GeneratorRun.start(set, seed, { ...TIGER, beam: depth }, { tokens }, BUCKETS);
  await run.train(new RunFolder(path.join(folder, 'tiger')), (line, passing) => {
    if (!passing) print(`tiger: ${line}`);
  });
  return new TigerLists(log, vectors, run, tokenizer, set.numItems);
}

const contents = (vectors: ItemVectors, from: number, to: number): { data: Float32Array; dim: number } => {
  const data = new Float32Array((to - from) * vectors.dim);
  for (let item = from; item < to; item++) data.set(vectors.contentOf(item), (item - from) * vectors.dim);
  return { data, dim: vectors.dim };
};

export class TigerLists implements ListModel {
  readonly name = 'tiger';
  readonly #log: WorldLog;
  readonly #vectors: ItemVectors;
  readonly #run: GeneratorRun;
  readonly #tokenizer: Tokenizer;
  /** Items at the cut. */
  readonly #numItems: number;
  /** Codes of all items so far, rooms that opened later among them. */
  #codes: Int32Array;
  /** Cards and videos never change. */
  readonly #grounds = new Map<string, { items: Int32Array; ground: BeamGround }>();

  constructor(
    log: WorldLog,
    vectors: ItemVectors,
    run: GeneratorRun,
    tokenizer: Tokenizer,
    numItems: number,
  ) {
    this.#log = log;
    this.#vectors = vectors;
    this.#run = run;
    this.#tokenizer = tokenizer;
    this.#numItems = numItems;
    this.#codes = tokenizer.tokens.codes;
  }

  async rank({ request, scenario }: AskedRequest, depth: number): Promise<Int32Array> {
    const history = clicksBefore(this.#log, request, this.#numItems);
    if (history.length === 0) return new Int32Array(0);
    await this.#takeNewRooms();
    let known = this.#grounds.get(scenario);
    if (!known) {
      known = this.#groundOf(candidatesOf(this.#log, scenario));
      if (scenario !== 'live_stream') this.#grounds.set(scenario, known);
    }
    const { items, ground } = known;
    const asked = { user: 0, history, target: 0 };
    const [found] = await this.#run.search([asked], depth, ground);
    return found!.candidates.items.slice(0, depth).map((place) => items[place - 1]!);
  }

  #groundOf(candidates: Int32Array): { items: Int32Array; ground: BeamGround } {
    const { numCodes } = this.#tokenizer.tokens;
    const levels = numCodes.length;
    const items = candidates.filter((item) => this.#codes[item * levels]! >= 0);
    const codes = new Int32Array(items.length * levels);
    items.forEach((item, i) => {
      codes.set(this.#codes.subarray(item * levels, (item + 1) * levels), i * levels);
    });
    // an item has its SID to itself
    const ground = { trie: new SidTrie(codes, numCodes), logShare: new Float64Array(items.length) };
    return { items, ground };
  }

  async #takeNewRooms(): Promise<void> {
    const levels = this.#tokenizer.tokens.numCodes.length;
    const before = this.#codes.length / levels;
    const { numItems } = this.#log;
    if (numItems === before) return;
    const later = await this.#tokenizer.encodeLater(contents(this.#vectors, before, numItems).data);
    const grown = new Int32Array(numItems * levels);
    grown.set(this.#codes);
    grown.set(later, this.#codes.length);
    this.#codes = grown;
  }

  close(): Promise<void> {
    return this.#run.trainer.close();
  }
}
