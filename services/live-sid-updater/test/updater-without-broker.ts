/** The updater's stages on a state in memory, and what a reader makes of the records. */
import type { ProductChangeKind } from '@onemall/contracts';
import {
  CodebookEncoder,
  LIVE_STREAM,
  PRODUCT_CARD,
  stackVectors,
  trainCodebook,
} from '@onemall/quantization';
import { vectorOf } from '@onemall/testkit';
import { computeItemSids } from '../src/stages/compute-item-sids.ts';
import {
  type ComputedLiveSids,
  computeLiveSids,
  type LiveSidRecord,
} from '../src/stages/compute-live-sids.ts';
import { UpdaterState } from '../src/state/updater-state.ts';
import { item } from './items.ts';

const ITEMS = Array.from({ length: 20 }, (_, n) => item(`p${n}`, { embedding: vectorOf(n) }));

/** What the updater has written, of which the time and the value of each record matter here. */
export interface Written {
  key: string;
  timestampMs: number;
  value: { validFromMs: number; sid: { c1: number; c2: number; c3: number } | null } | null;
}

/** The codes that a reader finds for a request at this time. */
export function codesAsOf(log: readonly Written[], timeMs: number): number[] | null {
  let found: { fromMs: number; codes: number[] | null } | null = null;
  for (const { value, timestampMs } of log) {
    const fromMs = value ? value.validFromMs : timestampMs;
    if (fromMs > timeMs || (found && fromMs < found.fromMs)) continue;
    found = { fromMs, codes: value?.sid ? [value.sid.c1, value.sid.c2, value.sid.c3] : null };
  }
  return found?.codes ?? null;
}

const vectors = stackVectors(ITEMS.map((_, n) => Float32Array.from(vectorOf(n))));
const encoders = await Promise.all(
  [PRODUCT_CARD, LIVE_STREAM].map(async (scenario) =>
    CodebookEncoder.open(
      await trainCodebook(vectors, {
        scenario,
        version: 1,
        numCodes: [4, 4, 4],
        lastLevel: 'kmeans',
        cutoffMs: 0,
        seed: 7,
      }),
    ),
  ),
);

export class Updater {
  readonly state = new UpdaterState({
    scenarios: [PRODUCT_CARD, LIVE_STREAM],
    textEmbeddingDim: 8,
    debounceMs: 0,
    maxDebounceMs: 0,
    flapHoldMs: 0,
    numPartitions: 1,
  });
  #offset = 0;

  /** @param log what an earlier process has written, as a table reads it at start */
  constructor(log: readonly (Written & { topic: 'item-sids' | 'live-sids' })[] = [], flapHoldMs = 0) {
    this.state = new UpdaterState({
      scenarios: [PRODUCT_CARD, LIVE_STREAM],
      textEmbeddingDim: 8,
      debounceMs: 0,
      maxDebounceMs: 0,
      flapHoldMs,
      numPartitions: 1,
    });
    for (const record of log) {
      const [state, { key, timestampMs }] = [this.state, record];
      if (record.topic === 'item-sids') state.takeItemSid(key, record.value as never, timestampMs);
      else state.takeLiveSid(key, record.value as never, timestampMs);
    }
    for (const encoder of encoders) this.state.serve(encoder);
    for (const value of ITEMS)
      this.state.takeItem({ key: value.itemId, value, partition: 0, timestampMs: 0 }, 0);
    this.state.own(0);
    this.#offset = log.length;
  }

  async publishItem(itemId: string, nowMs: number) {
    const records = await computeItemSids(this.state, [itemId], nowMs);
    for (const { key, value, timestampMs } of records) this.state.applyItemSid(key, value, timestampMs);
    return records;
  }

  /** A change of the room, taken and published at once. */
  async publishRoom(
    kind: ProductChangeKind,
    itemId: string | null,
    eventTimeMs: number,
    nowMs: number,
  ): Promise<LiveSidRecord[]> {
    const change = { changeId: 'c', liveId: 'room', kind, itemId, eventTimeMs };
    this.state.rooms.take({ partition: 0, offset: this.#offset++, appendedMs: nowMs, change }, nowMs);
    return (await this.settle(nowMs)).records;
  }

  /** As a turn of the pipeline. */
  async settle(nowMs: number): Promise<ComputedLiveSids> {
    const rooms = this.state.rooms.settle(nowMs);
    const result = await computeLiveSids(this.state, rooms, nowMs);
    for (const room of rooms) this.state.rooms.stored(room);
    for (const { liveId, causeMs, untilMs } of result.held) this.state.rooms.hold(liveId, causeMs, untilMs);
    for (const { key, value, timestampMs } of result.records)
      this.state.liveSids.apply(key, value, timestampMs);
    return result;
  }
}
