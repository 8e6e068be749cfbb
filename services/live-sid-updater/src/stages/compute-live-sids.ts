import type { LiveSid, Sid } from '@onemall/contracts';
import type { SidCodes } from '@onemall/learning/live-tower';
import {
  type CodebookEncoder,
  LIVE_STREAM,
  NUM_LEVELS,
  PRODUCT_CARD,
  stackVectors,
} from '@onemall/quantization';
import { sidKey } from '../state/published.ts';
import type { SettledRoom } from '../state/rooms.ts';
import type { UpdaterState } from '../state/updater-state.ts';
import { decideLiveSid, sameSid } from './decide-live-sid.ts';

export interface LiveSidRecord {
  topic: 'live-sids';
  key: string;
  value: LiveSid | null;
  /** Readers end a closed room's SID here. */
  timestampMs: number;
  /** Partition of live-product-changes whose owner writes it. */
  sourcePartition: number;
}
export interface ComputedLiveSids {
  records: LiveSidRecord[];
  /** Rooms whose SID was computed, times versions. */
  computed: number;
  /** Records whose SID differs from the one before, by cause. */
  productChanges: number;
  itemChanges: number;
  /** In one version: 0 while codebooks and towers stay what they are. */
  modelChanges: number;
  /** Rooms that keep their SID for now; `computeAgain` from the time given. */
  held: { liveId: string; causeMs: number; untilMs: number }[];
}

/**
 * Records that bring live-sids up to these rooms: new and changed SIDs or products, tombstones of rooms that ended. All rooms
 * go through tower and codebook at once: a run of either costs about the same for one room as for two hundred.
 */
export async function computeLiveSids(
  state: UpdaterState,
  rooms: readonly SettledRoom[],
  nowMs: number,
): Promise<ComputedLiveSids> {
  const result: ComputedLiveSids = {
    records: [],
    computed: 0,
    productChanges: 0,
    itemChanges: 0,
    modelChanges: 0,
    held: [],
  };
  for (const encoder of state.encoders(LIVE_STREAM)) {
    const { version } = encoder.codebook;
    const sids = await encodeRooms(state, encoder, rooms);
    for (const [i, room] of rooms.entries()) {
      const { liveId } = room;
      const record = {
        topic: 'live-sids',
        key: sidKey(liveId, version),
        timestampMs: nowMs,
        sourcePartition: room.partition,
      } as const;
      const before = state.liveSids.get(liveId, version);
      if (room.state.endedMs !== null) {
        if (before) result.records.push({ ...record, value: null });
        continue;
      }
      result.computed++;
      const wanted = sids[i] ?? null;
      const current = before?.sid ?? null;
      const untilMs = state.flaps.heldUntilMs(record.key, current, wanted, nowMs);
      const sid = untilMs === null ? wanted : current;
      if (untilMs !== null) result.held.push({ liveId, causeMs: room.causeMs, untilMs });
      const value = decideLiveSid({
        liveId,
        sid,
        before,
        endedMs: state.liveSids.endedMs(liveId, version),
        sellingItemIds: room.state.sellingItemIds,
        explainingItemId: room.state.explainingItemId,
        sourcePartition: room.partition,
        sourceOffset: room.offset,
        causeMs: room.causeMs,
        reason: room.reason,
        nowMs,
      });
      if (!value) continue;
      result.records.push({ ...record, value });
      if (!current || sameSid(current, sid)) continue;
      state.flaps.moved(record.key, current, nowMs);
      if (room.reason === 'PRODUCT_CHANGE') result.productChanges++;
      else if (room.reason === 'ITEM_CHANGED') result.itemChanges++;
      else result.modelChanges++;
    }
  }
  return result;
}

async function encodeRooms(
  state: UpdaterState,
  encoder: CodebookEncoder,
  rooms: readonly SettledRoom[],
): Promise<(Sid | null)[]> {
  const vectors = await roomVectors(state, encoder.codebook.version, rooms);
  const known = vectors.filter((v) => v !== null);
  if (known.length === 0) return rooms.map(() => null);
  const codes = await encoder.encode(stackVectors(known));
  const { scenario, version: codebookVersion } = encoder.codebook;
  let at = 0;
  return vectors.map((vector) => {
    if (!vector) return null;
    const sid = { scenario, codebookVersion, c1: codes[at]!, c2: codes[at + 1]!, c3: codes[at + 2]! };
    at += NUM_LEVELS;
    return sid;
  });
}

/** m of each room: from the frozen tower of the codebook version, the mean of its products where it has none. */
async function roomVectors(
  state: UpdaterState,
  version: number,
  rooms: readonly SettledRoom[],
): Promise<(Float32Array | null)[]> {
  const tower = state.tower(version);
  if (!tower) {
    await state.catalogue.embedTexts(rooms.flatMap(({ state: room }) => room.sellingItemIds));
    return rooms.map(({ state: room }) =>
      room.endedMs === null ? state.catalogue.room(room.sellingItemIds, room.explainingItemId) : null,
    );
  }
  const productVersion = tower.codebookVersions[PRODUCT_CARD];
  const sidOf = (itemId: string): SidCodes | null => {
    const sid = productVersion === undefined ? null : state.itemSids.get(itemId, productVersion);
    return sid && { scenario: PRODUCT_CARD, c1: sid.c1, c2: sid.c2, c3: sid.c3 };
  };
  return tower.embed(
    rooms.map(({ liveId, state: { endedMs, sellingItemIds } }) => ({
      facts: state.roomFacts(liveId),
      sellingItemIds: endedMs === null ? sellingItemIds : [],
    })),
    sidOf,
  );
}
