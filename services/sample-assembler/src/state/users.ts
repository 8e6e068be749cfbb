/**
 * Users of a partition: which known exposures they have, and what they did, for point-in-time histories. A user's lists
 * are in memory while they are warm; above the cache's size they go to where cold ones lie, all three as one record.
 */
import { BlockArena, readInt32, writeInt32 } from '../bytes/block-arena.ts';
import { equalBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { SlotColumns } from '../bytes/slot-columns.ts';
import { SlotTable } from '../bytes/slot-table.ts';
import { type ColdHistories, ColdHistoriesError } from './cold-histories.ts';
import { HistoryLists, type NewEntry, NO_LIST } from './history-list.ts';
import { NONE } from './known-exposures.ts';
import { WarmUsers } from './warm-users.ts';

const COLUMNS = {
  /** Of the newest event. */
  newestMs: Float64Array,
  hash: Int32Array,
  id: Int32Array,
  idLength: Int32Array,
  firstExposure: Int32Array,
  exposures: Int32Array,
  clicks: Int32Array,
  buys: Int32Array,
  /** Events in the three lists, wherever these are. */
  numEvents: Int32Array,
  /** Where the lists lie while they are cold, or -1. */
  coldAt: Float64Array,
  coldBytes: Int32Array,
  warmAt: Int32Array,
  isTouched: Uint8Array,
} as const;
export type HistoryKind = 'exposures' | 'clicks' | 'buys';
export const HISTORY_KINDS = ['exposures', 'clicks', 'buys'] as const;

/** Lengths of the three packed lists stand before them in a cold record. */
const RECORD_HEADER_BYTES = 4 * HISTORY_KINDS.length;
/** After a failed write the cache grows by this share before the next is tried. */
const GROWTH_AFTER_FAILURE = 1.1;

/** Without it all histories stay in memory. */
export interface HistoryCache {
  cold: ColdHistories;
  /** Of the warm ones. */
  maxBytes: number;
}

export class Users {
  readonly columns = new SlotColumns(COLUMNS);
  readonly lists: HistoryLists;
  readonly #byId = new SlotTable();
  readonly #arena: BlockArena;
  readonly #histories = new BlockArena();
  readonly #historyLength: number;
  readonly #cache: HistoryCache | null;
  readonly #warm = new WarmUsers(() => this.columns.of);
  #record = new Uint8Array(4096);
  #numEntries = 0;
  #sweptTo = 0;
  #coldError: ColdHistoriesError | null = null;
  #evictAboveBytes: number;

  /**
   * @param arena of the ids
   * @param historyLength H, the events of each kind that a look-up gives at most
   */
  constructor(arena: BlockArena, historyLength: number, cache: HistoryCache | null = null) {
    this.#arena = arena;
    this.lists = new HistoryLists(this.#histories);
    this.#historyLength = historyLength;
    this.#cache = cache;
    this.#evictAboveBytes = cache?.maxBytes ?? Number.POSITIVE_INFINITY;
    if (cache)
      cache.cold.owners = {
        positionOf: (user) => this.columns.of.coldAt[user]!,
        moved: (user, position) => {
          this.columns.of.coldAt[user] = position;
        },
      };
  }

  get numEntries(): number {
    return this.#numEntries;
  }
  /** In memory. */
  get sizeBytes(): number {
    return this.columns.sizeBytes + this.#byId.sizeBytes + this.#histories.sizeBytes;
  }
  get numWarm(): number {
    return this.#warm.size;
  }
  /** Why histories that should be on disk stay in memory; null while they can be written. */
  get coldError(): ColdHistoriesError | null {
    return this.#coldError;
  }

  save(into: Sections): void {
    this.columns.save('users', into);
    this.#histories.save('Histories', into);
    into.facts.historyEvents = this.#numEntries;
  }
  load(from: Sections): void {
    this.columns.load('users', from);
    this.#histories.load('Histories', from);
    this.#warm.load(this.columns);
    this.#numEntries = from.fact<number>('historyEvents');
    this.#byId.addAll(this.columns, this.columns.of.hash);
  }

  find(bytes: Uint8Array, idAt: number, idLength: number, hash: number): number {
    const table = this.#byId;
    const { of } = this.columns;
    for (let i = table.first(hash); table.slots[i]! >= 0; i = table.next(i)) {
      const slot = table.slots[i]!;
      if (table.hashes[i] !== hash || of.idLength[slot] !== idLength) continue;
      const address = of.id[slot]!;
      if (equalBytes(this.#arena.bytesAt(address), this.#arena.placeOf(address), bytes, idAt, idLength))
        return slot;
    }
    return NONE;
  }

  add(bytes: Uint8Array, idAt: number, idLength: number, hash: number): number {
    const slot = this.columns.add();
    const { of } = this.columns;
    of.newestMs[slot] = 0;
    of.hash[slot] = hash;
    of.id[slot] = this.#arena.put(bytes, idAt, idLength);
    of.idLength[slot] = idLength;
    of.firstExposure[slot] = NONE;
    of.exposures[slot] = NO_LIST;
    of.clicks[slot] = NO_LIST;
    of.buys[slot] = NO_LIST;
    of.numEvents[slot] = 0;
    of.coldAt[slot] = NONE;
    of.warmAt[slot] = NONE;
    of.isTouched[slot] = 0;
    this.#byId.add(hash, slot);
    return slot;
  }

  /**
   * Adds an event to the user's history; a copy changes nothing. Every event from a cutoff on is kept and H older ones,
   * so that each exposure that is still open finds its H events however active the user has been since.
   * @param cutoffMs no look-up before this moment will come for this user; asked only when there is much to prune
   */
  remember(user: number, kind: HistoryKind, entry: NewEntry, cutoffMs: (user: number) => number): void {
    const { of } = this.columns;
    if (entry.timeMs > of.newestMs[user]!) of.newestMs[user] = entry.timeMs;
    this.warm(user);
    this.#add(user, kind, entry, cutoffMs);
    if (this.#histories.usedBytes > this.#evictAboveBytes) this.#evict(user);
  }

  #add(user: number, kind: HistoryKind, entry: NewEntry, cutoffMs: (user: number) => number): void {
    const { of } = this.columns;
    const { lists } = this;
    const list = lists.add(of[kind][user]!, entry);
    of[kind][user] = list;
    if (!lists.wasAdded) return;
    this.#numEntries++;
    of.numEvents[user]!++;
    const length = this.#historyLength;
    const { count } = lists;
    if (count < (lists.pruneAtCount || 2 * length + 8)) return;
    const keep = Math.min(count, count - lists.countBefore(cutoffMs(user)) + length);
    of[kind][user] = lists.prune(list, keep, 2 * Math.max(length, keep) + 8);
    this.#numEntries -= count - keep;
    of.numEvents[user]! -= count - keep;
  }

  /** Brings the user's lists into memory; they stay there at least until the next call. */
  warm(user: number): void {
    if (!this.#cache) return;
    const { of } = this.columns;
    const position = of.coldAt[user]!;
    if (position !== NONE) {
      const sizeBytes = of.coldBytes[user]!;
      const record = this.#cache.cold.read(position, sizeBytes);
      let at = RECORD_HEADER_BYTES;
      for (const [i, kind] of HISTORY_KINDS.entries()) {
        const length = readInt32(record, 4 * i);
        of[kind][user] = this.lists.unpack(record, at, length);
        at += length;
      }
      of.coldAt[user] = NONE;
      this.#cache.cold.free(position, sizeBytes);
    }
    this.#warm.touch(user);
  }

  /** Makes room in memory; the given user stays. */
  #evict(except: number): void {
    const { cold, maxBytes } = this.#cache!;
    while (this.#histories.usedBytes > maxBytes) {
      const user = this.#warm.next(except);
      if (user === NONE) return;
      try {
        this.#cool(user, cold);
      } catch (error) {
        if (!(error instanceof ColdHistoriesError)) throw error;
        // They stay in memory, which the partition's limit bounds, until the disk has room again.
        this.#coldError = error;
        this.#evictAboveBytes = this.#histories.usedBytes * GROWTH_AFTER_FAILURE;
        return;
      }
    }
    this.#coldError = null;
    this.#evictAboveBytes = maxBytes;
  }

  #cool(user: number, cold: ColdHistories): void {
    const { of } = this.columns;
    const { lists } = this;
    let at = RECORD_HEADER_BYTES;
    for (const [i, kind] of HISTORY_KINDS.entries()) {
      const length = lists.packedBytes(of[kind][user]!);
      if (at + length > this.#record.length) {
        const larger = new Uint8Array(2 * (at + length));
        larger.set(this.#record.subarray(0, at));
        this.#record = larger;
      }
      writeInt32(this.#record, 4 * i, length);
      if (length > 0) lists.packInto(this.#record, at);
      at += length;
    }
    const position = cold.put(user, this.#record.subarray(0, at));
    for (const kind of HISTORY_KINDS) {
      lists.free(of[kind][user]!);
      of[kind][user] = NO_LIST;
    }
    of.coldAt[user] = position;
    of.coldBytes[user] = at;
    this.#warm.remove(user);
  }

  /** Drops users without known exposures whose newest event is older than that. Looks at `numSlots` slots each time. */
  forgetBefore(timeMs: number, numSlots: number): void {
    const { columns } = this;
    for (let n = Math.min(numSlots, columns.end); n > 0; n--) {
      this.#sweptTo = this.#sweptTo + 1 < columns.end ? this.#sweptTo + 1 : 0;
      const slot = this.#sweptTo;
      if (!columns.isUsed(slot) || columns.of.firstExposure[slot] !== NONE) continue;
      if (columns.of.newestMs[slot]! < timeMs) this.remove(slot);
    }
  }

  remove(slot: number): void {
    const { of } = this.columns;
    this.#numEntries -= of.numEvents[slot]!;
    for (const kind of HISTORY_KINDS) this.lists.free(of[kind][slot]!);
    const position = of.coldAt[slot]!;
    of.coldAt[slot] = NONE; // it is asked which records are alive
    if (position !== NONE) this.#cache!.cold.free(position, of.coldBytes[slot]!);
    this.#warm.remove(slot);
    this.#byId.remove(of.hash[slot]!, slot);
    this.#arena.free(of.id[slot]!);
    this.columns.free(slot);
  }
}
