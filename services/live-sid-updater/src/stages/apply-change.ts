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
export function applyChange(room: RoomState, change: ProductChange): RoomState {
  const { kind, itemId, eventTimeMs } = change;
  if (room.endedMs !== null && eventTimeMs <= room.endedMs) return room;
  if (kind === 'ROOM_ENDED') return { ...EMPTY_ROOM, endedMs: eventTimeMs };
  if (itemId === null) return room;
  const open = room.endedMs === null ? room : EMPTY_ROOM;
  if (eventTimeMs < (open.changedMs.get(itemId) ?? Number.NEGATIVE_INFINITY)) return open;
  const changedMs = new Map(open.changedMs).set(itemId, eventTimeMs);
  if (kind === 'REMOVED') {
    const explained = open.explainingItemId === itemId;
    return {
      ...open,
      changedMs,
      sellingItemIds: open.sellingItemIds.filter((id) => id !== itemId),
      explainingItemId: explained ? null : open.explainingItemId,
    };
  }
  const sellingItemIds = open.sellingItemIds.includes(itemId)
    ? open.sellingItemIds
    : [...open.sellingItemIds, itemId];
  if (kind === 'EXPLAINING' && eventTimeMs >= open.explainingSinceMs)
    return { ...open, changedMs, sellingItemIds, explainingItemId: itemId, explainingSinceMs: eventTimeMs };
  return { ...open, changedMs, sellingItemIds };
}

/** Forgets change times of products that are off sale for longer than any disorder of the log. */
export function forgetOldChanges(room: RoomState, beforeMs: number): RoomState {
  if (room.changedMs.size <= room.sellingItemIds.length) return room;
  const selling = new Set(room.sellingItemIds);
  const changedMs = new Map([...room.changedMs].filter(([id, ms]) => selling.has(id) || ms >= beforeMs));
  return changedMs.size === room.changedMs.size ? room : { ...room, changedMs };
}
