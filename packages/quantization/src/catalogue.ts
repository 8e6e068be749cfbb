/**
 * The items of all scenarios as the tokenizer sees them: content embeddings, which video promotes which product, and
 * the vector m of each item. Used by whoever trains or applies codebooks.
 */
import { roomVector, videoVector } from './item-vectors.ts';
import { type ItemText, textEmbedding } from './text-embedding.ts';
import {
  QuantizationError,
  type RandomSource,
  sampleIndices,
  stackVectors,
  type Vectors,
} from './vectors.ts';

export const PRODUCT_CARD = 'product_card';
export const SHORT_VIDEO = 'short_video';
export const LIVE_STREAM = 'live_stream';

/** The fields of an Item that the tokenizer reads. */
export interface CatalogueItem extends ItemText {
  scenario: string;
  validFromMs: number;
  productId: string | null;
  embedding: readonly number[] | null;
}

/** Content embeddings of items that bring none, in place of the hashed n-grams. */
export interface ItemTextEncoder {
  /** Names the encoder and its weights: a codebook belongs to one. */
  readonly name: string;
  readonly dim: number;
  /** float32 [items, dim] */
  encode(items: readonly ItemText[]): Promise<Vectors>;
}

/** An item whose embedding cannot be used. */
export class ItemRefusedError extends Error {
  readonly reason: 'NOT_A_NUMBER' | 'WRONG_DIMENSION';
  constructor(reason: 'NOT_A_NUMBER' | 'WRONG_DIMENSION', message: string) {
    super(message);
    this.name = 'ItemRefusedError';
    this.reason = reason;
  }
}

interface Entry {
  scenario: string;
  validFromMs: number;
  category: string;
  productId: string | null;
  /** Content embedding; computed when first asked for where it comes from text. */
  embedding: Float32Array | null;
  text: ItemText | null;
}

export class Catalogue {
  readonly #entries = new Map<string, Entry>();
  readonly #byScenario = new Map<string, Set<string>>();
  readonly #videosByProduct = new Map<string, Set<string>>();
  /** Length of the content embeddings by scenario. */
  readonly #dims = new Map<string, number>();
  readonly #textDim: number;
  readonly #textEncoder: ItemTextEncoder | null;

  /**
   * @param textDim length of text embeddings in scenarios whose items bring none of their own
   * @param textEncoder makes them, by `embedTexts`; hashed n-grams without one
   */
  constructor(textDim: number, textEncoder: ItemTextEncoder | null = null) {
    this.#textDim = textEncoder?.dim ?? textDim;
    this.#textEncoder = textEncoder;
  }

  /** What a codebook of this catalogue must name; null for hashed n-grams. */
  get textEncoderName(): string | null {
    return this.#textEncoder?.name ?? null;
  }

  /**
   * Embeds those of these items, and of the products that they promote, that have text and no embedding yet, in one batch.
   * With hashed n-grams there is nothing to do.
   * @throws QuantizationError where a codebook in use asks for another length
   */
  async embedTexts(itemIds: Iterable<string>): Promise<void> {
    const encoder = this.#textEncoder;
    if (!encoder) return;
    const waiting = new Map<string, Entry & { text: ItemText }>();
    const add = (itemId: string | null): void => {
      const entry = itemId === null ? undefined : this.#entries.get(itemId);
      if (!entry?.text || entry.embedding || entry.scenario === LIVE_STREAM) return;
      const dim = this.contentDim(entry.scenario);
      if (dim !== encoder.dim)
        throw new QuantizationError(
          `Embeddings of ${entry.scenario} have ${dim} numbers, the text encoder ${encoder.name} gives ${encoder.dim}: items with embeddings and with texts do not mix`,
        );
      waiting.set(itemId!, { ...entry, text: entry.text });
    };
    for (const itemId of itemIds) {
      add(itemId);
      add(this.#entries.get(itemId)?.productId ?? null);
    }
    if (waiting.size === 0) return;
    const { data, dim } = await encoder.encode(Array.from(waiting.values(), ({ text }) => text));
    for (const [row, [itemId, { text }]] of [...waiting].entries()) {
      const entry = this.#entries.get(itemId);
      // A newer text may have come meanwhile.
      if (entry?.text && JSON.stringify(entry.text) === JSON.stringify(text))
        entry.embedding = data.slice(row * dim, (row + 1) * dim);
    }
  }

  /** Content embeddings of this scenario have this length, as a codebook in use demands. */
  fixContentDim(scenario: string, dim: number): void {
    this.#dims.set(scenario, dim);
  }

  /** Length of a scenario's content embeddings. */
  contentDim(scenario: string): number {
    return this.#dims.get(scenario) ?? this.#textDim;
  }

  /** Length of m. */
  vectorDim(scenario: string): number {
    if (scenario === LIVE_STREAM) return this.contentDim(PRODUCT_CARD);
    return this.contentDim(scenario) + (scenario === SHORT_VIDEO ? this.contentDim(PRODUCT_CARD) : 0);
  }

  /**
   * Adds or replaces an item.
   * @returns ids of the items whose m may have changed: this one and the videos that promote it; none where nothing
   * that the tokenizer reads has changed
   * @throws ItemRefusedError for an embedding with numbers that are not finite or of another length than the scenario's
   */
  put(item: CatalogueItem): string[] {
    const { itemId, scenario } = item;
    if (item.embedding && scenario !== LIVE_STREAM) this.#check(itemId, scenario, item.embedding);
    const before = this.#entries.get(itemId);
    const entry: Entry = {
      scenario,
      validFromMs: item.validFromMs,
      category: item.category,
      productId: item.productId,
      embedding: item.embedding ? Float32Array.from(item.embedding) : null,
      text: item.embedding
        ? null
        : { itemId, title: item.title, category: item.category, tags: [...item.tags] },
    };
    if (before && before.scenario !== scenario) this.#unlink(itemId, before);
    if (before && before.productId !== entry.productId) this.#unlinkVideo(itemId, before);
    this.#entries.set(itemId, entry);
    getOrAdd(this.#byScenario, scenario, () => new Set<string>()).add(itemId);
    if (scenario === SHORT_VIDEO && entry.productId !== null)
      getOrAdd(this.#videosByProduct, entry.productId, () => new Set<string>()).add(itemId);
    if (before && sameForTokenizer(before, entry)) {
      entry.embedding ??= before.embedding;
      return [];
    }
    return [itemId, ...(scenario === PRODUCT_CARD ? (this.#videosByProduct.get(itemId) ?? []) : [])];
  }

  /** @returns ids of the items whose m may have changed by the removal, the removed one first; none if it was unknown */
  remove(itemId: string): string[] {
    const entry = this.#entries.get(itemId);
    if (!entry) return [];
    this.#entries.delete(itemId);
    this.#unlink(itemId, entry);
    return [itemId, ...(this.#videosByProduct.get(itemId) ?? [])];
  }

  has(itemId: string): boolean {
    return this.#entries.has(itemId);
  }
  scenarioOf(itemId: string): string | null {
    return this.#entries.get(itemId)?.scenario ?? null;
  }
  validFromMs(itemId: string): number {
    return this.#entries.get(itemId)?.validFromMs ?? 0;
  }
  count(scenario: string): number {
    return this.#byScenario.get(scenario)?.size ?? 0;
  }
  ids(scenario: string): Iterable<string> {
    return this.#byScenario.get(scenario) ?? [];
  }
  scenarios(): string[] {
    return [...this.#byScenario].filter(([, ids]) => ids.size > 0).map(([scenario]) => scenario);
  }

  /** The item's own embedding, or that of its text; null for an unknown item, and for a text that waits for `embedTexts`. */
  contentEmbedding(itemId: string): Float32Array | null {
    const entry = this.#entries.get(itemId);
    return entry ? this.#content(entry) : null;
  }

  #content(entry: Entry): Float32Array | null {
    if (!this.#textEncoder && entry.text && entry.embedding?.length !== this.contentDim(entry.scenario))
      entry.embedding = textEmbedding(entry.text, this.contentDim(entry.scenario));
    return entry.embedding;
  }

  /** m of a product card or short video; null for an unknown item and for live rooms (see `room`). */
  vector(itemId: string): Float32Array | null {
    const entry = this.#entries.get(itemId);
    if (!entry || entry.scenario === LIVE_STREAM) return null;
    const own = this.contentEmbedding(itemId);
    if (!own || entry.scenario !== SHORT_VIDEO) return own;
    return videoVector(this.#product(entry.productId), own, this.contentDim(PRODUCT_CARD));
  }

  /** m of a live room that sells these products; null while no embedding of them is known. */
  room(sellingItemIds: readonly string[], explainingItemId: string | null): Float32Array | null {
    return roomVector(
      sellingItemIds.map((id) => this.#product(id)),
      explainingItemId === null ? -1 : sellingItemIds.indexOf(explainingItemId),
    );
  }

  /**
   * What a codebook of a scenario is trained on: m of its items in order of their ids, so that the order in which the
   * log gave them does not matter. Live rooms change all the time and may not have begun: their codebook is trained on
   * drawn ones, one per product card, which sell one to six products of a category with one of them being explained.
   * @returns null where the scenario has nothing to train on
   */
  trainingVectors(scenario: string, random: RandomSource, maxVectors: number): Vectors | null {
    const source = scenario === LIVE_STREAM ? PRODUCT_CARD : scenario;
    const all = [...this.ids(source)].sort();
    if (all.length === 0) return null;
    const ids = Array.from(sampleIndices(all.length, maxVectors, random), (i) => all[i]!);
    if (scenario !== LIVE_STREAM) return stackVectors(ids.map((id) => this.vector(id)!));
    return stackVectors(this.#drawRooms(all, ids, random).map((room) => this.room(room, room[0]!)!));
  }

  /** Products on sale in drawn rooms, one room per product card at most; the first is the one being explained. */
  drawnRooms(random: RandomSource, maxRooms: number): string[][] {
    const all = [...this.ids(PRODUCT_CARD)].sort();
    return this.#drawRooms(
      all,
      Array.from(sampleIndices(all.length, maxRooms, random), (i) => all[i]!),
      random,
    );
  }

  #drawRooms(all: readonly string[], explained: readonly string[], random: RandomSource): string[][] {
    const byCategory = new Map<string, string[]>();
    for (const id of all) getOrAdd(byCategory, this.#entries.get(id)!.category, () => []).push(id);
    return explained.map((id) => {
      const others = byCategory.get(this.#entries.get(id)!.category)!;
      const selling = [id];
      for (let more = Math.floor(random.next() * 6); more > 0; more--)
        selling.push(others[Math.floor(random.next() * others.length)]!);
      return selling;
    });
  }

  /** Greatest validFromMs of the items that a codebook of the scenario is trained on. */
  newestMs(scenario: string): number {
    let newest = 0;
    for (const id of this.ids(scenario === LIVE_STREAM ? PRODUCT_CARD : scenario))
      newest = Math.max(newest, this.validFromMs(id));
    return newest;
  }

  #product(itemId: string | null): Float32Array | null {
    const entry = itemId === null ? undefined : this.#entries.get(itemId);
    return entry?.scenario === PRODUCT_CARD ? this.#content(entry) : null;
  }

  #check(itemId: string, scenario: string, embedding: readonly number[]): void {
    const bad = embedding.findIndex((v) => !Number.isFinite(v));
    if (bad >= 0)
      throw new ItemRefusedError(
        'NOT_A_NUMBER',
        `The embedding of item ${itemId} holds ${embedding[bad]} at place ${bad}`,
      );
    const dim = this.#dims.get(scenario);
    if (embedding.length === 0 || (dim !== undefined && embedding.length !== dim))
      throw new ItemRefusedError(
        'WRONG_DIMENSION',
        `Embeddings of ${scenario} have ${dim ?? 'at least 1'} numbers, that of item ${itemId} has ${embedding.length}`,
      );
    if (dim === undefined) this.#dims.set(scenario, embedding.length);
  }

  #unlink(itemId: string, entry: Entry): void {
    this.#byScenario.get(entry.scenario)?.delete(itemId);
    this.#unlinkVideo(itemId, entry);
  }

  #unlinkVideo(itemId: string, entry: Entry): void {
    if (entry.productId !== null) this.#videosByProduct.get(entry.productId)?.delete(itemId);
  }
}

function sameForTokenizer(a: Entry, b: Entry): boolean {
  if (a.scenario !== b.scenario || a.productId !== b.productId) return false;
  if (a.text || b.text) return JSON.stringify(a.text) === JSON.stringify(b.text);
  return a.embedding!.length === b.embedding!.length && a.embedding!.every((v, d) => v === b.embedding![d]);
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
