/** Users of a partition: which known exposures they have, and what they did, for point-in-time histories. */
import type { BlockArena } from '../bytes/block-arena.ts';
import { equalBytes } from '../bytes/hash.ts';
import type { Sections } from '../bytes/sections.ts';
import { SlotColumns } from '../bytes/slot-columns.ts';
import { SlotTable } from '../bytes/slot-table.ts';
import { HistoryLists, type NewEntry, NO_LIST } from './history-list.ts';
import { NONE } from './known-exposures.ts';

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
} as const;
export type HistoryKind = 'exposures' | 'clicks' | 'buys';
export const HISTORY_KINDS = ['exposures', 'clicks', 'buys'] as const;

export class Users {
  readonly columns = new SlotColumns(COLUMNS);
  readonly lists: HistoryLists;
  readonly #byId = new SlotTable();
  readonly #arena: BlockArena;
  readonly #historyLength: number;
  #numEntries = 0;
  #sweptTo = 0;

  /** @param historyLength H, the events of each kind that a look-up gives at most */
  constructor(arena: BlockArena, historyLength: number) {
    this.#arena = arena;
    this.lists = new HistoryLists(arena);
    this.#historyLength = historyLength;
  }

  get numEntries(): number {
    return this.#numEntries;
  }
  get sizeBytes(): number {
    return this.columns.sizeBytes + this.#byId.sizeBytes;
  }

  save(into: Sections): void {
    this.columns.save('users', into);
    into.facts.historyEvents = this.#numEntries;
  }
  load(from: Sections): void {
    this.columns.load('users', from);
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
    const { lists } = this;
    const list = lists.add(of[kind][user]!, entry);
    of[kind][user] = list;
    if (!lists.wasAdded) return;
    this.#numEntries++;
    const length = this.#historyLength;
    const { count } = lists;
    if (count < (lists.pruneAtCount || 2 * length + 8)) return;
    const keep = Math.min(count, count - lists.countBefore(cutoffMs(user)) + length);
    of[kind][user] = lists.prune(list, keep, 2 * Math.max(length, keep) + 8);
    this.#numEntries -= count - keep;
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
    for (const kind of HISTORY_KINDS) {
      const list = of[kind][slot]!;
      if (list === NO_LIST) continue;
      this.lists.open(list);
      this.#numEntries -= this.lists.count;
      this.lists.free(list);
    }
    this.#byId.remove(of.hash[slot]!, slot);
    this.#arena.free(of.id[slot]!);
    this.columns.free(slot);
  }
}
