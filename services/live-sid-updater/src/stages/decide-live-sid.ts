import type { LiveSid, Sid, SidReason } from '@onemall/contracts';

/**
 * The record to publish for a room, or null where SID, products and the explained one are as published. live-sids is
 * also the updater's state, therefore the explained product counts. The first SID of a room in a codebook version is
 * valid from 0, a later one from the event time of its cause, and always after the one before; so is that of a room which
 * closed and is live again.
 */
export function decideLiveSid(input: {
  liveId: string;
  sid: Sid | null;
  before: LiveSid | null;
  /** When a SID of this room in this codebook version ended with the room; null where none did. */
  endedMs: number | null;
  sellingItemIds: readonly string[];
  explainingItemId: string | null;
  sourcePartition: number;
  sourceOffset: number;
  /** Event time of the newest change that led here. */
  causeMs: number;
  reason: SidReason;
  nowMs: number;
}): LiveSid | null {
  const { before, endedMs, sid, sellingItemIds, explainingItemId } = input;
  if (
    before &&
    sameSid(before.sid, sid) &&
    before.explainingItemId === explainingItemId &&
    before.sellingItemIds.length === sellingItemIds.length &&
    before.sellingItemIds.every((id, i) => id === sellingItemIds[i])
  )
    return null;
  const first = endedMs === null && (!before || (before.sid === null && before.validFromMs === 0));
  const lastMs = Math.max(before?.validFromMs ?? 0, endedMs ?? 0);
  return {
    liveId: input.liveId,
    sid,
    validFromMs: first ? 0 : Math.max(input.causeMs, lastMs + 1),
    reason: before ? input.reason : input.reason === 'NEW_CODEBOOK' ? 'NEW_CODEBOOK' : 'NEW_ITEM',
    sellingItemIds: [...sellingItemIds],
    explainingItemId,
    sourcePartition: input.sourcePartition,
    sourceOffset: input.sourceOffset,
    createdMs: input.nowMs,
  };
}

export const sameSid = (a: Sid | null, b: Sid | null): boolean =>
  a === b ||
  (a !== null &&
    b !== null &&
    a.c1 === b.c1 &&
    a.c2 === b.c2 &&
    a.c3 === b.c3 &&
    a.codebookVersion === b.codebookVersion);
