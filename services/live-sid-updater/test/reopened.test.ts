/** What ends and comes back: a reader that ends SIDs at their tombstones finds the right one at every moment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CodebookEncoder,
  LIVE_STREAM,
  PRODUCT_CARD,
  stackVectors,
  trainCodebook,
} from '@onemall/quantization';
import { computeItemSids } from '../src/stages/compute-item-sids.ts';
import { computeLiveSids } from '../src/stages/compute-live-sids.ts';
import { UpdaterState } from '../src/state/updater-state.ts';
import { item, vectorOf } from './items.ts';

const ITEMS = Array.from({ length: 20 }, (_, n) => item(`p${n}`, { embedding: vectorOf(n) }));

/** What the updater has written, of which the time and the value of each record matter here. */
interface Written {
  key: string;
  timestampMs: number;
  value: { validFromMs: number; sid: { c1: number; c2: number; c3: number } | null } | null;
}

/** The codes that a reader finds for a request at this time. */
function codesAsOf(log: readonly Written[], timeMs: number): number[] | null {
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

class Updater {
  readonly state = new UpdaterState({
    scenarios: [PRODUCT_CARD, LIVE_STREAM],
    textEmbeddingDim: 8,
    debounceMs: 0,
    maxDebounceMs: 0,
    numPartitions: 1,
  });
  #offset = 0;

  /** @param log what an earlier process has written, as a table reads it at start */
  constructor(log: readonly (Written & { topic: 'item-sids' | 'live-sids' })[] = []) {
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
    for (const { key, value, timestampMs } of records) this.state.itemSids.apply(key, value, timestampMs);
    return records;
  }

  async publishRoom(kind: 'ADDED' | 'ROOM_ENDED', itemId: string | null, eventTimeMs: number, nowMs: number) {
    const change = { changeId: 'c', liveId: 'room', kind, itemId, eventTimeMs };
    this.state.rooms.take({ partition: 0, offset: this.#offset++, appendedMs: nowMs, change }, nowMs);
    const { records } = await computeLiveSids(this.state, this.state.rooms.settle(nowMs), nowMs);
    for (const { key, value, timestampMs } of records) this.state.liveSids.apply(key, value, timestampMs);
    return records;
  }
}

for (const restarts of [false, true]) {
  const when = restarts ? ' after a restart' : '';

  test(`a room that opens again${when} keeps its past, has none in between, and a SID from then on`, async () => {
    let updater = new Updater();
    const log = await updater.publishRoom('ADDED', 'p1', 1_000, 1_100);
    log.push(...(await updater.publishRoom('ROOM_ENDED', null, 2_000, 2_100)));
    const before = codesAsOf(log, 1_500);
    assert.ok(before);
    if (restarts) updater = new Updater(log);
    log.push(...(await updater.publishRoom('ADDED', 'p9', 3_000, 3_100)));
    assert.equal(log.length, 3);
    const after = codesAsOf(log, 3_000);
    assert.ok(after);
    assert.notDeepEqual(after, before);
    assert.deepEqual(
      [0, 2_099, 2_100, 2_999, 9_999].map((timeMs) => codesAsOf(log, timeMs)),
      [before, before, null, null, after],
    );
  });

  test(`an item that is sold again${when} keeps its past, has none in between, and a SID from then on`, async () => {
    let updater = new Updater();
    const log = await updater.publishItem('p1', 1_100);
    updater.state.takeItem({ key: 'p1', value: null, partition: 0, timestampMs: 2_000 }, 2_000);
    log.push(...(await updater.publishItem('p1', 2_100)));
    const before = codesAsOf(log, 1_500);
    assert.ok(before);
    if (restarts) updater = new Updater(log);
    const back = item('p1', { embedding: vectorOf(9), validFromMs: 3_000 });
    updater.state.takeItem({ key: 'p1', value: back, partition: 0, timestampMs: 3_000 }, 3_000);
    log.push(...(await updater.publishItem('p1', 3_100)));
    assert.equal(log.length, 3);
    const after = codesAsOf(log, 3_000);
    assert.ok(after);
    assert.notDeepEqual(after, before);
    assert.deepEqual(
      [0, 2_099, 2_100, 2_999, 9_999].map((timeMs) => codesAsOf(log, timeMs)),
      [before, before, null, null, after],
    );
  });
}

test('a room that opens again before its tombstone was written is valid after the tombstone', async () => {
  const updater = new Updater();
  const log = await updater.publishRoom('ADDED', 'p1', 1_000, 1_100);
  log.push(...(await updater.publishRoom('ROOM_ENDED', null, 2_000, 2_100)));
  log.push(...(await updater.publishRoom('ADDED', 'p9', 2_050, 2_150)));
  assert.equal(log.at(-1)!.value!.validFromMs, 2_101);
  assert.ok(codesAsOf(log, 9_999));
});
