/** The list of TIGER's form on the world's log, by its own beam and its own tokenizer. */
import type { BeamGround, GeneratorRun } from '../../sequences/models/generator-run.ts';
import type { Tokenizer } from '../../sequences/models/tokens.ts';
import { SidTrie } from '../../sequences/stages/sid-trie.ts';
import { candidatesOf } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import { clicksBefore } from '../samples/click-sequences.ts';
import type { ItemVectors } from '../samples/semantic-ids.ts';
import type { AskedRequest, ListModel } from './list-model.ts';

export const contents = (
  vectors: ItemVectors,
  from: number,
  to: number,
): { data: Float32Array; dim: number } => {
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
