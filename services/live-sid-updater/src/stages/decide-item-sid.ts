import type { ItemSid, Sid, SidReason } from '@onemall/contracts';

/** What is published for an item in one codebook version. */
export interface PublishedSid {
  c1: number;
  c2: number;
  c3: number;
  validFromMs: number;
}

/**
 * The record to publish for an item whose SID was computed, or null where the published one still holds. The first SID
 * in a codebook version is valid from 0; a later one from the item's change, and always after the one before. An item
 * that was removed and is back gets none for the time before its return.
 */
export function decideItemSid(input: {
  itemId: string;
  sid: Sid;
  before: PublishedSid | null;
  /** When a SID of this item in this codebook version ended by removal; null where none did. */
  endedMs: number | null;
  /** validFromMs of the item. */
  itemValidFromMs: number;
  /** Reason of a first SID. */
  firstReason: SidReason;
  nowMs: number;
}): ItemSid | null {
  const { itemId, sid, before, endedMs, nowMs } = input;
  const afterEndMs = endedMs === null ? 0 : Math.max(input.itemValidFromMs, endedMs + 1);
  if (!before) return { itemId, sid, validFromMs: afterEndMs, reason: input.firstReason, createdMs: nowMs };
  if (before.c1 === sid.c1 && before.c2 === sid.c2 && before.c3 === sid.c3) return null;
  return {
    itemId,
    sid,
    validFromMs: Math.max(input.itemValidFromMs, before.validFromMs + 1, afterEndMs),
    reason: 'ITEM_CHANGED',
    createdMs: nowMs,
  };
}
