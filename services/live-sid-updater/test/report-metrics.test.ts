import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Metric } from '@onemall/contracts';
import type { OutRecord, RecordWriter } from '@onemall/kafka-io';
import { ManualClock, type ServiceContext, StageMeter } from '@onemall/service-kit';
import type { ChangeLog } from '../src/adapters/change-log.ts';
import { SidReporter } from '../src/adapters/report-metrics.ts';
import type { UpdaterConfig } from '../src/config.ts';
import { UpdaterState } from '../src/state/updater-state.ts';

const START_MS = 1_000_000;

test('churn is what changed in the last minute by its cause, staleness the age of the oldest change that waits', async () => {
  const clock = new ManualClock(START_MS);
  const meter = new StageMeter('live-sid-updater');
  const config = { sidMetricsEveryMs: 1_000, catalogueMetricsEveryMs: 60_000 };
  const state = new UpdaterState({
    ...{ scenarios: ['live_stream'], textEmbeddingDim: 8, debounceMs: 25, maxDebounceMs: 100 },
    ...{ flapHoldMs: 2_000, numPartitions: 1 },
  });
  const context = { clock, meter, config } as unknown as ServiceContext<UpdaterConfig>;
  const reporter = new SidReporter(context, state, { lag: async () => 7 } as unknown as ChangeLog);
  const points: Metric[] = [];
  const writer: RecordWriter = {
    send: async (records) => {
      for (const record of records) points.push((record as OutRecord<'sid-metrics'>).value!);
    },
    close: async () => {},
  };
  const counted = { records: [], computed: 9, productChanges: 4, itemChanges: 2, modelChanges: 0 };
  reporter.countComputed({ ...counted, held: [{ liveId: 'r', causeMs: 1, untilMs: 2 }] });
  const change = { changeId: 'c', liveId: 'r', kind: 'ADDED', itemId: 'p', eventTimeMs: START_MS } as const;
  state.rooms.take({ partition: 0, offset: 3, appendedMs: START_MS - 40, change }, clock.nowMs());
  assert.equal(await reporter.report(writer), true);
  const { values, lag } = meter.status('running');
  assert.equal(lag, 7);
  assert.deepEqual(
    [values.live_sid_churn_per_minute, values.live_sid_model_change_per_minute, values.live_sid_staleness_ms],
    [6, 0, 40],
  );
  assert.equal(values.live_sids_held_per_minute, 1);
  const { productChangePerMinute, itemChangePerMinute, stalenessMs } = points[0]!.values;
  assert.deepEqual([productChangePerMinute, itemChangePerMinute, stalenessMs], [4, 2, 40]);
  assert.equal(await reporter.report(writer), false, 'not before the next one is due');

  // A minute later nothing has changed lately, and the change that waited has its SID.
  clock.advance(61_000);
  for (const room of state.rooms.settle(clock.nowMs())) state.rooms.stored(room);
  assert.equal(await reporter.report(writer), true);
  const later = points[1]!.values;
  assert.deepEqual([later.churnPerMinute, later.stalenessMs, later.liveSidsRecomputed], [0, 0, 9]);
});
