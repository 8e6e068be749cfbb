/** The live rooms of this process: their state, and the changes that wait for the debounce. Time is passed in. */
import type { LiveSid, ProductChange, SidReason } from '@onemall/contracts';
import { applyChanges, EMPTY_ROOM, forgetOldChanges, type RoomState } from '../stages/apply-change.ts';

export interface TakenChange {
  partition: number;
  offset: number;
  /** When the broker or the producer stamped it. */
  appendedMs: number;
  change: ProductChange;
}

interface Room {
  liveId: string;
  partition: number;
  state: RoomState;
  /** Offset of the newest change taken. */
  offset: number;
  pending: TakenChange[];
  firstPendingMs: number;
  lastPendingMs: number;
  /** Oldest change that no durable record reflects; null where all are. */
  unstoredOffset: number | null;
  /** Why the room is to be computed although nothing is pending. */
  dirty: { causeMs: number; reason: SidReason } | null;
  /** Not before this time, unless a change comes. */
  heldUntilMs: number;
}

/** A room whose waiting changes have been applied, to be computed and published. */
export interface SettledRoom {
  liveId: string;
  partition: number;
  state: RoomState;
  offset: number;
  causeMs: number;
  reason: SidReason;
  /** Stamp of the oldest change taken; null where a product or codebook was the cause. */
  oldestAppendedMs: number | null;
}

/** Products off sale keep the time of their last change this long, for changes that come out of order. */
const DISORDER_MS = 600_000;
/** Rooms that ended are remembered, so that a change from before the end does not open them again. */
const MAX_ENDED_ROOMS = 10_000;

export class Rooms {
  readonly #rooms = new Map<string, Room>();
  readonly #selling = new Map<string, Set<string>>();
  /** Rooms with pending changes or dirty. */
  readonly #waiting = new Set<Room>();
  /** By partition, rooms with changes that no durable record reflects. */
  readonly #unstored = new Map<number, Set<Room>>();
  /** In order of their end. */
  readonly #ended: string[] = [];
  readonly #debounceMs: number;
  readonly #maxDebounceMs: number;

  constructor(options: { debounceMs: number; maxDebounceMs: number }) {
    this.#debounceMs = options.debounceMs;
    this.#maxDebounceMs = options.maxDebounceMs;
  }

  /** Rooms that are live. */
  get liveCount(): number {
    let live = 0;
    for (const room of this.#rooms.values()) if (room.state.endedMs === null) live++;
    return live;
  }

  /** True while a room waits to be settled. */
  get waiting(): boolean {
    return this.#waiting.size > 0;
  }

  /** Takes over a room as live-sids has it. Of several versions of one room the newest state counts. */
  restore(record: LiveSid): void {
    const before = this.#rooms.get(record.liveId);
    if (before && before.offset >= record.sourceOffset) return;
    const state: RoomState = {
      ...EMPTY_ROOM,
      sellingItemIds: record.sellingItemIds,
      explainingItemId: record.explainingItemId,
    };
    if (before) this.#remove(before);
    const room = this.#newRoom(record.liveId, record.sourcePartition, state, record.sourceOffset);
    this.#index(room.liveId, state.sellingItemIds);
  }

  /** @returns false for a change that the restored state already holds */
  take(taken: TakenChange, nowMs: number): boolean {
    const { liveId } = taken.change;
    const room = this.#rooms.get(liveId) ?? this.#newRoom(liveId, taken.partition, EMPTY_ROOM, -1);
    if (taken.offset <= room.offset) return false;
    room.offset = taken.offset;
    if (room.unstoredOffset === null) this.#setUnstored(room, taken.offset);
    if (room.pending.length === 0) room.firstPendingMs = nowMs;
    room.lastPendingMs = nowMs;
    room.pending.push(taken);
    this.#waiting.add(room);
    return true;
  }

  /** Rooms that sell this product are to be computed again. */
  productChanged(itemId: string, causeMs: number): void {
    for (const liveId of this.#selling.get(itemId) ?? [])
      this.#markDirty(this.#rooms.get(liveId)!, { causeMs, reason: 'ITEM_CHANGED' });
  }

  computeAgain(liveId: string, causeMs: number): void {
    const room = this.#rooms.get(liveId);
    if (room) this.#markDirty(room, { causeMs, reason: 'ITEM_CHANGED' });
  }

  /** The room kept a SID that its products do not give; it is computed again then, or with its next change. */
  hold(liveId: string, causeMs: number, untilMs: number): void {
    const room = this.#rooms.get(liveId);
    if (!room || room.state.endedMs !== null) return;
    const dueAnyway = room.dirty !== null;
    this.#markDirty(room, { causeMs, reason: 'PRODUCT_CHANGE' });
    if (!dueAnyway) room.heldUntilMs = untilMs;
  }

  isLive(liveId: string): boolean {
    const room = this.#rooms.get(liveId);
    return room !== undefined && room.state.endedMs === null;
  }

  /** All rooms are to be computed in a codebook version that is new. */
  codebookArrived(): void {
    for (const room of this.#rooms.values()) this.#markDirty(room, { causeMs: 0, reason: 'NEW_CODEBOOK' });
  }

  /** Applies the changes of rooms whose debounce is over, in order of event time. */
  settle(
    nowMs: number,
    options: { all?: boolean; partition?: number; except?: { has(partition: number): boolean } } = {},
  ): SettledRoom[] {
    const settled: SettledRoom[] = [];
    for (const room of this.#waiting) {
      if (options.partition !== undefined && room.partition !== options.partition) continue;
      if (options.except?.has(room.partition)) continue;
      const due =
        options.all ||
        (room.pending.length === 0 && nowMs >= room.heldUntilMs) ||
        (room.pending.length > 0 &&
          nowMs >=
            Math.min(room.lastPendingMs + this.#debounceMs, room.firstPendingMs + this.#maxDebounceMs));
      if (!due) continue;
      this.#waiting.delete(room);
      settled.push(this.#settleRoom(room));
    }
    return settled;
  }

  /** The room's state is durable, or nothing of it needed to be published. */
  stored(settled: SettledRoom): void {
    const room = this.#rooms.get(settled.liveId);
    if (!room || room.partition !== settled.partition) return;
    this.#setUnstored(room, room.pending[0]?.offset ?? null);
    if (settled.state.endedMs === null) return;
    this.#ended.push(room.liveId);
    if (this.#ended.length <= MAX_ENDED_ROOMS) return;
    const oldest = this.#rooms.get(this.#ended.shift()!);
    if (oldest && oldest.state.endedMs !== null && oldest.unstoredOffset === null)
      this.#rooms.delete(oldest.liveId);
  }

  /** Offset from which changes of the partition must be read again after a crash; null where all are stored. */
  oldestUnstored(partition: number): number | null {
    let oldest: number | null = null;
    for (const { unstoredOffset } of this.#unstored.get(partition) ?? [])
      oldest = Math.min(oldest ?? unstoredOffset!, unstoredOffset!);
    return oldest;
  }

  /** Stamp of the oldest change that waits; null where none does. */
  oldestPendingMs(): number | null {
    let oldest: number | null = null;
    for (const room of this.#waiting)
      if (room.pending.length > 0)
        oldest = Math.min(oldest ?? room.pending[0]!.appendedMs, room.pending[0]!.appendedMs);
    return oldest;
  }

  /** Another process owns the partition now. */
  forget(partition: number): void {
    for (const room of this.#rooms.values()) {
      if (room.partition === partition) this.#remove(room);
    }
  }

  #remove(room: Room): void {
    this.#unindex(room.liveId, room.state.sellingItemIds);
    this.#waiting.delete(room);
    this.#setUnstored(room, null);
    this.#rooms.delete(room.liveId);
  }

  #setUnstored(room: Room, offset: number | null): void {
    room.unstoredOffset = offset;
    const unstored = this.#unstored.get(room.partition);
    if (offset === null) unstored?.delete(room);
    else if (unstored) unstored.add(room);
    else this.#unstored.set(room.partition, new Set([room]));
  }

  #settleRoom(room: Room): SettledRoom {
    const pending = room.pending.sort(
      (a, b) => a.change.eventTimeMs - b.change.eventTimeMs || a.offset - b.offset,
    );
    room.pending = [];
    const before = room.state;
    let state = applyChanges(
      before,
      pending.map(({ change }) => change),
    );
    const newestMs = pending.at(-1)?.change.eventTimeMs;
    if (newestMs !== undefined) state = forgetOldChanges(state, newestMs - DISORDER_MS);
    room.state = state;
    this.#reindex(room, before.sellingItemIds);
    const dirty = room.dirty;
    room.dirty = null;
    room.heldUntilMs = 0;
    return {
      liveId: room.liveId,
      partition: room.partition,
      state,
      offset: room.offset,
      causeMs: Math.max(newestMs ?? 0, dirty?.causeMs ?? 0),
      reason: newestMs !== undefined ? 'PRODUCT_CHANGE' : dirty!.reason,
      oldestAppendedMs: pending.length > 0 ? Math.min(...pending.map((p) => p.appendedMs)) : null,
    };
  }

  #newRoom(liveId: string, partition: number, state: RoomState, offset: number): Room {
    const room: Room = {
      liveId,
      partition,
      state,
      offset,
      pending: [],
      firstPendingMs: 0,
      lastPendingMs: 0,
      unstoredOffset: null,
      dirty: null,
      heldUntilMs: 0,
    };
    this.#rooms.set(liveId, room);
    return room;
  }

  #markDirty(room: Room, dirty: { causeMs: number; reason: SidReason }): void {
    room.dirty = room.dirty && room.dirty.causeMs > dirty.causeMs ? room.dirty : dirty;
    room.heldUntilMs = 0;
    this.#waiting.add(room);
  }

  /** Most changes add a product at the end or only explain one: what both lists begin with stays as it is. */
  #reindex(room: Room, before: readonly string[]): void {
    const after = room.state.sellingItemIds;
    let same = 0;
    while (same < before.length && before[same] === after[same]) same++;
    this.#unindex(room.liveId, before.slice(same));
    this.#index(room.liveId, after.slice(same));
  }

  #index(liveId: string, itemIds: readonly string[]): void {
    for (const itemId of itemIds) {
      const rooms = this.#selling.get(itemId);
      if (rooms) rooms.add(liveId);
      else this.#selling.set(itemId, new Set([liveId]));
    }
  }

  #unindex(liveId: string, itemIds: readonly string[]): void {
    for (const itemId of itemIds) {
      const rooms = this.#selling.get(itemId);
      rooms?.delete(liveId);
      if (rooms?.size === 0) this.#selling.delete(itemId);
    }
  }
}
