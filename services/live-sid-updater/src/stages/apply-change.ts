import type { ProductChange } from '@onemall/contracts';

/** What a live room sells, as far as its changes have been taken. */
export interface RoomState {
  /** Products on sale, in order of being added. */
  sellingItemIds: readonly string[];
  explainingItemId: string | null;
  /** Event time of the newest change of each product, so that an older one that comes later is recognised. */
  changedMs: ReadonlyMap<string, number>;
  explainingSinceMs: number;
  /** Event time of the end; null while the room is live. */
  endedMs: number | null;
}

export const EMPTY_ROOM: RoomState = {
  sellingItemIds: [],
  explainingItemId: null,
  changedMs: new Map(),
  explainingSinceMs: Number.NEGATIVE_INFINITY,
  endedMs: null,
};

/**
 * The room after one change. The newest change of a product by event time decides, whatever the order of arrival; a
 * product that is explained is on sale. Changes from before the end of the room change nothing; one from after it
 * opens the room again.
 *
 * applyChange(EMPTY_ROOM, ADDED a) -> selling [a]; then EXPLAINING b -> selling [a, b], explaining b
 */
export const applyChange = (room: RoomState, change: ProductChange): RoomState =>
  applyChanges(room, [change]);

interface RoomDraft extends RoomState {
  sellingItemIds: readonly string[];
  explainingItemId: string | null;
  changedMs: Map<string, number>;
  explainingSinceMs: number;
}

/** One change after the other, as `applyChange`, with one copy of what the room holds. */
export function applyChanges(room: RoomState, changes: readonly ProductChange[]): RoomState {
  let after = room;
  let draft: RoomDraft | null = null;
  for (const { kind, itemId, eventTimeMs } of changes) {
    if (after.endedMs !== null && eventTimeMs <= after.endedMs) continue;
    if (kind === 'ROOM_ENDED') {
      after = { ...EMPTY_ROOM, endedMs: eventTimeMs };
      draft = null;
      continue;
    }
    if (itemId === null) continue;
    const open: RoomState = after.endedMs === null ? after : EMPTY_ROOM;
    if (eventTimeMs < (open.changedMs.get(itemId) ?? Number.NEGATIVE_INFINITY)) continue;
    draft ??= { ...open, changedMs: new Map(open.changedMs) };
    after = draft;
    draft.changedMs.set(itemId, eventTimeMs);
    if (kind === 'REMOVED') {
      draft.sellingItemIds = draft.sellingItemIds.filter((id) => id !== itemId);
      if (draft.explainingItemId === itemId) draft.explainingItemId = null;
      continue;
    }
    if (!draft.sellingItemIds.includes(itemId)) draft.sellingItemIds = [...draft.sellingItemIds, itemId];
    if (kind !== 'EXPLAINING' || eventTimeMs < draft.explainingSinceMs) continue;
    draft.explainingItemId = itemId;
    draft.explainingSinceMs = eventTimeMs;
  }
  return after;
}

/** Forgets change times of products that are off sale for longer than any disorder of the log. */
export function forgetOldChanges(room: RoomState, beforeMs: number): RoomState {
  if (room.changedMs.size <= room.sellingItemIds.length) return room;
  const selling = new Set(room.sellingItemIds);
  const changedMs = new Map([...room.changedMs].filter(([id, ms]) => selling.has(id) || ms >= beforeMs));
  return changedMs.size === room.changedMs.size ? room : { ...room, changedMs };
}
