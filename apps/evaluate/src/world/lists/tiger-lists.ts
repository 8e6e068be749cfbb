/** The lists of TIGER's form on the world's log, by its own beam and its own tokenizer. */
import type { BeamGround, GeneratorRun } from '../../sequences/models/generator-run.ts';
import type { Tokenizer } from '../../sequences/models/tokens.ts';
import type { Candidates } from '../../sequences/stages/beam-search.ts';
import { SidTrie } from '../../sequences/stages/sid-trie.ts';
import { candidatesOf, type Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import { clicksBefore } from '../samples/click-sequences.ts';
import type { ItemVectors } from '../samples/semantic-ids.ts';
import type { AskedRequest, ListModel } from './list-model.ts';
import { topOf } from './simple-lists.ts';

export const contents = (
  vectors: ItemVectors,
  from: number,
  to: number,
): { data: Float32Array; dim: number } => {
  const data = new Float32Array((to - from) * vectors.dim);
  for (let item = from; item < to; item++) data.set(vectors.contentOf(item), (item - from) * vectors.dim);
  return { data, dim: vectors.dim };
};

/** What TIGER's beam finds for a request; one request at a time is kept, since two lists ask for it. */
export class TigerBeams {
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
  #newest: { request: number; depth: number; found: Promise<Candidates> } | null = null;

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

  /** At most `depth` item numbers with log p, best first; none for a user who clicked nothing yet. */
  of(asked: AskedRequest, depth: number): Promise<Candidates> {
    if (this.#newest?.request !== asked.request || this.#newest.depth !== depth)
      this.#newest = { request: asked.request, depth, found: this.#search(asked, depth) };
    return this.#newest.found;
  }

  async #search({ request, scenario }: AskedRequest, depth: number): Promise<Candidates> {
    const history = clicksBefore(this.#log, request, this.#numItems);
    if (history.length === 0) return { items: new Int32Array(0), scores: new Float64Array(0) };
    await this.#takeNewRooms();
    let known = this.#grounds.get(scenario);
    if (!known) {
      known = this.#groundOf(candidatesOf(this.#log, scenario));
      if (scenario !== 'live_stream') this.#grounds.set(scenario, known);
    }
    const { items, ground } = known;
    const asked = { user: 0, history, target: 0 };
    const [found] = await this.#run.search([asked], depth, ground);
    const { items: places, scores } = found!.candidates;
    return {
      items: places.slice(0, depth).map((place) => items[place - 1]!),
      scores: scores.slice(0, depth),
    };
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

/** What the beam found in its own order, or in that of log p + log popularity as of the request. */
export class TigerLists implements ListModel {
  readonly name: string;
  readonly #beams: Pick<TigerBeams, 'of'>;
  readonly #popularity: Popularity | null;

  constructor(name: string, beams: Pick<TigerBeams, 'of'>, popularity: Popularity | null) {
    this.name = name;
    this.#beams = beams;
    this.#popularity = popularity;
  }

  async rank(asked: AskedRequest, depth: number): Promise<Int32Array> {
    const { items, scores } = await this.#beams.of(asked, depth);
    const popularity = this.#popularity;
    if (!popularity) return items;
    const weighed = scores.map((score, i) => score + Math.log(1 + popularity.of(items[i]!)));
    return topOf(weighed, depth).map((i) => items[i]!);
  }
}
