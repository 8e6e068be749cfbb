/**
 * consumes        nothing
 * produces        items, live-product-changes, exposures, clicks, buys
 * waits for       the broker: one send is under way while the next batch is made; in wall time also the clock; in the closed
 *                 loop the policy that is asked, at most simulatorArmTimeoutMs
 * is unblocked by the send's answer
 * commits when    the state file is written before rooms open, so that no room stays open unknown to the next run
 */
import type { OutRecord, RecordWriter } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { PoliciesUnderTest } from './adapters/policies-under-test.ts';
import type { SimulatorState } from './adapters/state-file.ts';
import type { World, WorldRecord } from './world/world.ts';

const CATALOGUE_BATCH = 2_000;
/** In wall time a process that is further behind leaves out requests instead of flooding the log. */
const MAX_BEHIND_MS = 2_000;
const IDLE_MS = 10;

export interface TrafficOptions {
  world: World;
  writer: RecordWriter;
  meter: StageMeter;
  clock: Clock;
  stopping: AbortSignal;
  state: SimulatorState;
  save: (state: SimulatorState) => void;
  /** Event time up to which events are due, at a time of the clock; Infinity: as fast as possible. */
  dueMs: (nowMs: number) => number;
  /** Leave out requests when behind (wall time only). */
  maySkip: boolean;
  batchMs: number;
  batchRecords: number;
  /** 0: no end. */
  maxEvents: number;
  /** The policies of the world's arms; needed where it has any. */
  policies?: PoliciesUnderTest;
}

/** Product cards and videos, in batches. */
export async function publishCatalogue(
  world: World,
  writer: RecordWriter,
  meter: StageMeter,
  validFromMs: number,
): Promise<number> {
  let batch: OutRecord[] = [];
  let count = 0;
  const send = async (): Promise<void> => {
    await writer.send(batch);
    count += batch.length;
    meter.recordOut(batch.length);
    meter.set('items_published', count, 'Product cards and videos published by this run');
    batch = [];
  };
  for (const item of world.items(validFromMs)) {
    batch.push({ topic: 'items', key: item.itemId, value: item });
    if (batch.length === CATALOGUE_BATCH) await send();
  }
  if (batch.length > 0) await send();
  return count;
}

/** Ends rooms that an earlier run left open, then opens this run's. */
export async function openRooms(options: TrafficOptions, runId: string, nowMs: number): Promise<void> {
  const { world, state } = options;
  const ended: WorldRecord[] = state.openRooms.map((liveId, i) => ({
    topic: 'live-product-changes',
    key: liveId,
    value: { changeId: `e${runId}-${i}`, liveId, kind: 'ROOM_ENDED', itemId: null, eventTimeMs: nowMs },
  }));
  await sendBatch(options, [...ended, ...world.openRooms(nowMs)]);
}

/** Runs until stopped or maxEvents records are out; resolves with everything durable. */
export async function runTraffic(options: TrafficOptions): Promise<number> {
  const { world, clock, stopping, meter, maxEvents } = options;
  let sent = 0;
  let underWay: Promise<void> = Promise.resolve();
  while (!stopping.aborted && (maxEvents === 0 || sent < maxEvents)) {
    const nowMs = clock.nowMs();
    const dueMs = options.dueMs(nowMs);
    if (options.maySkip && dueMs - world.nextAtMs() > MAX_BEHIND_MS) {
      meter.add(
        'skipped_ms',
        dueMs - world.nextAtMs(),
        'Event time left out because the machine was too slow',
      );
      world.skipTo(dueMs);
    }
    const limit = maxEvents === 0 ? options.batchRecords : Math.min(options.batchRecords, maxEvents - sent);
    const batch = await takeBatch(options, dueMs, limit);
    await underWay;
    if (batch.length === 0) {
      await clock.sleep(IDLE_MS, stopping).catch(() => undefined);
      continue;
    }
    sent += batch.length;
    underWay = sendBatch(options, batch);
    // awaited in the next round; a failure in between must not count as unhandled
    underWay.catch(() => undefined);
  }
  await underWay;
  options.save(options.state);
  return sent;
}

/** What is due by now, at most `batchMs` of event time and `limit` records. Requests of an arm wait for its policy. */
async function takeBatch(options: TrafficOptions, dueMs: number, limit: number): Promise<WorldRecord[]> {
  const { world, policies, meter } = options;
  const batch: WorldRecord[] = [];
  const endMs = Math.min(dueMs, world.nextAtMs() + options.batchMs);
  while (batch.length < limit && world.nextAtMs() <= endMs) {
    const ask = world.asks();
    if (ask) {
      const shown = world.answer(await policies!.itemsFor(ask, world.spec.positions));
      meter.add(shown ? 'requests_of_arms' : 'requests_of_arms_without_answer');
      continue;
    }
    const record = world.next();
    policies?.follow(record);
    batch.push(record);
  }
  return batch;
}

async function sendBatch(options: TrafficOptions, batch: WorldRecord[]): Promise<void> {
  const { meter, state, world, writer, clock } = options;
  const rooms = new Set(state.openRooms);
  const ended: string[] = [];
  for (const record of batch) {
    if (record.topic === 'items') rooms.add(record.key);
    if (record.topic === 'live-product-changes' && record.value.kind === 'ROOM_ENDED') ended.push(record.key);
  }
  state.reachedMs = world.nextAtMs();
  if (rooms.size !== state.openRooms.length) {
    state.openRooms = [...rooms];
    options.save(state);
  }
  const startMs = clock.nowMs();
  await writer.send(batch);
  meter.recordOut(batch.length);
  meter.recordLatency(clock.nowMs() - startMs);
  for (const liveId of ended) rooms.delete(liveId);
  state.openRooms = [...rooms];
  const { counts } = world;
  meter.set('events_exposures', counts.exposures, 'Exposures made, copies not counted');
  meter.set('events_clicks', counts.clicks);
  meter.set('events_buys', counts.buys);
  meter.set('events_product_changes', counts.productChanges);
  meter.set('events_duplicates', counts.duplicates, 'Copies of events handed over');
  meter.set('events_late', counts.late, 'Events handed over after their windows closed');
  meter.set('events_without_exposure_id', counts.withoutExposureId);
  meter.set('rooms_open', rooms.size);
}
