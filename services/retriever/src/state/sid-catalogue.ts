/**
 * Which items and rooms exist now and which SID each has, per codebook version: fed by the tables items, item-sids and
 * live-sids, read as one trie per scenario and version. Entering and leaving costs a map entry; the trie is merged
 * anew when it is next asked for, at most every `rebuildMs`.
 */
import type { Item, ItemFeatures, ItemSid, LiveSid, Sid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';
import {
  buildTrie,
  emptyTrie,
  fitsCodebook,
  fittingSids,
  LARGEST_CODEBOOK,
  mergeSids,
  type NumCodes,
  packSid,
  partOfTrie,
  type SidTrie,
} from '../stages/build-trie.ts';

/** What serving needs of an item. */
export interface CatalogueItem {
  scenario: string;
  category: string;
  sellerId: string;
  priceCents: number;
  tags: readonly string[];
  /** Event time of the newest version: freshness. */
  validFromMs: number;
}

/** The SIDs of one scenario in one codebook version. */
class Shelf {
  readonly sidOf = new Map<string, number>();
  /** Most SIDs have one item: a set of its own for each would take most of the memory. */
  readonly #itemsOf = new Map<number, string | Set<string>>();
  #packed: Float64Array = new Float64Array(0);
  #entered = new Set<number>();
  #left = new Set<number>();
  #trie: SidTrie | undefined;
  #stale = false;
  #builtMs = Number.NEGATIVE_INFINITY;
  #narrowed = new Map<string, SidTrie>();

  put(itemId: string, packed: number): void {
    const before = this.sidOf.get(itemId);
    if (before === packed) return;
    if (before !== undefined) this.remove(itemId);
    this.sidOf.set(itemId, packed);
    const items = this.#itemsOf.get(packed);
    if (typeof items === 'string') this.#itemsOf.set(packed, new Set([items, itemId]));
    else if (items) items.add(itemId);
    else {
      this.#itemsOf.set(packed, itemId);
      if (!this.#left.delete(packed)) this.#entered.add(packed);
    }
    this.#stale = true;
  }

  remove(itemId: string): void {
    const packed = this.sidOf.get(itemId);
    if (packed === undefined) return;
    this.sidOf.delete(itemId);
    const items = this.#itemsOf.get(packed)!;
    if (typeof items !== 'string') items.delete(itemId);
    if (typeof items === 'string' || items.size === 0) {
      this.#itemsOf.delete(packed);
      if (!this.#entered.delete(packed)) this.#left.add(packed);
    }
    this.#stale = true;
  }

  itemsOf(packed: number): Iterable<string> {
    const items = this.#itemsOf.get(packed);
    return items === undefined ? [] : typeof items === 'string' ? [items] : items;
  }
  get numSids(): number {
    return this.#itemsOf.size;
  }

  /** Categories changed: tries narrowed by category are wrong. */
  touch(): void {
    this.#stale = true;
  }

  trie(numCodes: NumCodes, nowMs: number, rebuildMs: number): SidTrie {
    if (this.#trie && (!this.#stale || nowMs - this.#builtMs < rebuildMs)) return this.#trie;
    this.#packed = mergeSids(this.#packed, this.#entered, this.#left);
    this.#entered.clear();
    this.#left.clear();
    this.#trie = buildTrie(numCodes, fittingSids(numCodes, this.#packed));
    this.#stale = false;
    this.#builtMs = nowMs;
    this.#narrowed.clear();
    return this.#trie;
  }

  /** The part of a trie that a filter keeps, remembered until the trie changes. */
  narrowed(trie: SidTrie, filter: string, sids: () => Iterable<number>): SidTrie {
    const known = trie === this.#trie ? this.#narrowed.get(filter) : undefined;
    if (known) return known;
    const narrow = partOfTrie(trie, sids());
    if (trie !== this.#trie) return narrow;
    if (this.#narrowed.size < MAX_FILTERS_KEPT) this.#narrowed.set(filter, narrow);
    return narrow;
  }
}
const MAX_FILTERS_KEPT = 64;
const NOT_YET_KNOWN: Omit<CatalogueItem, 'scenario'> = {
  category: '',
  sellerId: '',
  priceCents: 0,
  tags: [],
  validFromMs: 0,
};

export class SidCatalogue {
  readonly #rebuildMs: number;
  readonly #items = new Map<string, CatalogueItem>();
  /** version -> scenario -> shelf */
  readonly #shelves = new Map<number, Map<string, Shelf>>();
  /** version -> itemId -> its newest SID, also while the item itself is not known. */
  readonly #newest = new Map<number, Map<string, Sid>>();
  readonly #asOf = new Map<number, AsOfTable<Sid>>();
  /** liveId -> products on sale now. */
  readonly #selling = new Map<string, readonly string[]>();
  /** The other way round, and category -> items: what filters ask for. */
  readonly #roomsSelling = new Map<string, Set<string>>();
  readonly #itemsOfCategory = new Map<string, Set<string>>();

  constructor(options: { rebuildMs: number }) {
    this.#rebuildMs = options.rebuildMs;
  }

  /** A version of an item; null where it left the catalogue. */
  putItem(itemId: string, item: Item | null): void {
    const before = this.#items.get(itemId);
    if (item === null) {
      if (before) removeFrom(this.#itemsOfCategory, before.category, itemId);
      this.#items.delete(itemId);
      this.#refresh(itemId);
      return;
    }
    if (before && before.validFromMs > item.validFromMs) return;
    if (before && before.category !== item.category)
      removeFrom(this.#itemsOfCategory, before.category, itemId);
    getOrPut(this.#itemsOfCategory, item.category, () => new Set<string>()).add(itemId);
    this.#items.set(itemId, {
      scenario: item.scenario,
      category: item.category,
      sellerId: item.sellerId,
      priceCents: item.priceCents,
      tags: item.tags,
      validFromMs: item.validFromMs,
    });
    if (!before) this.#refresh(itemId);
    else if (before.category !== item.category)
      for (const shelves of this.#shelves.values()) for (const shelf of shelves.values()) shelf.touch();
  }

  /** A record of item-sids; its key is itemId:codebookVersion, a tombstone ends the SID. */
  putItemSid(key: string, value: ItemSid | null): void {
    if (value === null) this.#dropSid(key);
    else this.#putSid(value.itemId, value.sid, value.validFromMs);
  }

  /** A record of live-sids: a room is on the shelf while it has a SID and sells something. */
  putLiveSid(key: string, value: LiveSid | null): void {
    if (value === null || value.sid === null || value.sellingItemIds.length === 0) {
      this.#dropSid(key);
      const liveId = value?.liveId ?? key.slice(0, key.lastIndexOf(':'));
      // the tombstone of a retired version does not end the room
      if (value || ![...this.#newest.values()].some((sids) => sids.has(liveId))) this.#sells(liveId, []);
      return;
    }
    this.#sells(value.liveId, value.sellingItemIds);
    this.#putSid(value.liveId, value.sid, value.validFromMs);
  }

  #sells(liveId: string, itemIds: readonly string[]): void {
    for (const sold of this.#selling.get(liveId) ?? []) removeFrom(this.#roomsSelling, sold, liveId);
    if (itemIds.length === 0) this.#selling.delete(liveId);
    else this.#selling.set(liveId, itemIds);
    for (const sold of itemIds) getOrPut(this.#roomsSelling, sold, () => new Set<string>()).add(liveId);
    for (const shelves of this.#shelves.values())
      for (const shelf of shelves.values()) if (shelf.sidOf.has(liveId)) shelf.touch();
  }

  /** @throws RangeError for codes that no codebook has */
  #putSid(itemId: string, sid: Sid, validFromMs: number): void {
    if (!fitsCodebook(LARGEST_CODEBOOK, sid))
      throw new RangeError(
        `The SID of ${itemId} has a code outside [0, ${LARGEST_CODEBOOK[0]}): ${sid.c1}, ${sid.c2}, ${sid.c3}`,
      );
    const version = sid.codebookVersion;
    getOrPut(this.#newest, version, () => new Map<string, Sid>()).set(itemId, sid);
    getOrPut(this.#asOf, version, () => new AsOfTable<Sid>()).put(itemId, validFromMs, sid);
    this.#place(itemId, sid);
  }

  /** It leaves the trie; as of earlier requests it stays known, for that is how the trainer encodes histories. */
  #dropSid(key: string): void {
    const colon = key.lastIndexOf(':');
    const itemId = key.slice(0, colon);
    const version = Number(key.slice(colon + 1));
    this.#newest.get(version)?.delete(itemId);
    for (const shelf of this.#shelves.get(version)?.values() ?? []) shelf.remove(itemId);
  }

  /** The item came or went: its SIDs do, too. */
  #refresh(itemId: string): void {
    for (const newest of this.#newest.values()) {
      const sid = newest.get(itemId);
      if (sid) this.#place(itemId, sid);
    }
  }

  #place(itemId: string, sid: Sid): void {
    const shelves = getOrPut(this.#shelves, sid.codebookVersion, () => new Map<string, Shelf>());
    const shelf = getOrPut(shelves, sid.scenario, () => new Shelf());
    if (this.#items.has(itemId) || this.#selling.has(itemId)) shelf.put(itemId, packSid(sid));
    else shelf.remove(itemId);
  }

  /** The SIDs that exist now, at most `rebuildMs` old; empty where there are none. */
  trie(scenario: string, codebookVersion: number, numCodes: NumCodes, nowMs: number): SidTrie {
    const shelf = this.#shelf(scenario, codebookVersion);
    return shelf ? shelf.trie(numCodes, nowMs, this.#rebuildMs) : emptyTrie(numCodes);
  }

  /** The part of the trie that has an item of one of the categories. */
  trieOfCategories(
    trie: SidTrie,
    scenario: string,
    codebookVersion: number,
    categories: readonly string[],
  ): SidTrie {
    const shelf = this.#shelf(scenario, codebookVersion);
    const wanted = new Set(categories);
    return shelf
      ? shelf.narrowed(trie, JSON.stringify([...wanted].sort()), () => this.#sidsInCategories(shelf, wanted))
      : trie;
  }

  /** Work for the items of the categories, not for the whole catalogue. */
  *#sidsInCategories(shelf: Shelf, categories: ReadonlySet<string>): Generator<number> {
    for (const category of categories)
      for (const itemId of this.#itemsOfCategory.get(category) ?? []) {
        const own = shelf.sidOf.get(itemId);
        if (own !== undefined) yield own;
        for (const liveId of this.#roomsSelling.get(itemId) ?? []) {
          const room = shelf.sidOf.get(liveId);
          if (room !== undefined) yield room;
        }
      }
  }

  /** True for an item of the category, and for a room that sells one. */
  inCategory(itemId: string, categories: ReadonlySet<string>): boolean {
    const own = this.#items.get(itemId);
    if (own && categories.has(own.category)) return true;
    return (this.#selling.get(itemId) ?? []).some((sold) => {
      const product = this.#items.get(sold);
      return product !== undefined && categories.has(product.category);
    });
  }

  /** What the item tower reads of an item now. A room may be on the shelf before its record in items: it has its products then. */
  features(itemId: string): ItemFeatures {
    const { category, sellerId, priceCents, tags, validFromMs } = this.#items.get(itemId) ?? NOT_YET_KNOWN;
    const sellingItemIds = [...(this.#selling.get(itemId) ?? [])];
    return { category, sellerId, priceCents, tags: [...tags], validFromMs, sellingItemIds };
  }

  item(itemId: string): CatalogueItem | undefined {
    return this.#items.get(itemId);
  }

  itemsOf(scenario: string, codebookVersion: number, packed: number): Iterable<string> {
    return this.#shelf(scenario, codebookVersion)?.itemsOf(packed) ?? [];
  }

  /** SID of an item or room now, packed. */
  sidNow(scenario: string, codebookVersion: number, itemId: string): number | undefined {
    return this.#shelf(scenario, codebookVersion)?.sidOf.get(itemId);
  }

  /** SID of an item or room as of a moment: what histories are encoded with. */
  sidAsOf(codebookVersion: number, itemId: string, timeMs: number): Sid | null {
    return this.#asOf.get(codebookVersion)?.asOf(itemId, timeMs) ?? null;
  }

  /** Distinct SIDs on the shelf, by scenario. */
  numSids(scenario: string, codebookVersion: number): number {
    return this.#shelf(scenario, codebookVersion)?.numSids ?? 0;
  }

  /**
   * Versions of SIDs that no request at or after timeMs can ask for, and codebook versions whose SIDs have all ended.
   * @param servedVersions codebook versions of the policy in use: histories need them, though every room has closed
   */
  forgetBefore(timeMs: number, servedVersions: ReadonlySet<number>): void {
    for (const [version, table] of this.#asOf)
      if (this.#newest.get(version)!.size > 0 || servedVersions.has(version)) table.forgetBefore(timeMs);
      else for (const byVersion of [this.#asOf, this.#newest, this.#shelves]) byVersion.delete(version);
  }

  get numItems(): number {
    return this.#items.size;
  }

  #shelf(scenario: string, codebookVersion: number): Shelf | undefined {
    return this.#shelves.get(codebookVersion)?.get(scenario);
  }
}

function getOrPut<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}

function removeFrom(map: Map<string, Set<string>>, key: string, value: string): void {
  const values = map.get(key);
  values?.delete(value);
  if (values?.size === 0) map.delete(key);
}
