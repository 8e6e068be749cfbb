import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StageMeter } from '../src/index.ts';

test('what a stage counts shows in its status and in its metrics alike', async () => {
  const meter = new StageMeter('sample-assembler');
  meter.recordIn(5);
  meter.recordIn();
  meter.recordOut(4);
  meter.recordDeadLetter('POISON');
  meter.recordDeadLetter('POISON');
  meter.setLag(17);
  meter.set('open_exposures', 3);
  meter.add('late_events', 2);
  meter.add('late_events');
  const status = meter.status('running');
  assert.deepEqual(
    { ...status, rssBytes: 0, upSeconds: 0 },
    {
      service: 'sample-assembler',
      state: 'running',
      in: 6,
      out: 4,
      p50Ms: null,
      p99Ms: null,
      lag: 17,
      deadLetters: 2,
      values: { open_exposures: 3, late_events: 3 },
      rssBytes: 0,
      upSeconds: 0,
    },
  );
  assert.ok(status.rssBytes > 1_000_000);
  const text = await meter.registry.metrics();
  assert.match(text, /^onemall_records_in_total\{service="sample-assembler"\} 6$/m);
  assert.match(text, /^onemall_records_out_total\{service="sample-assembler"\} 4$/m);
  assert.match(text, /^onemall_dead_letters_total\{reason="POISON",service="sample-assembler"\} 2$/m);
  assert.match(text, /^onemall_lag_records\{service="sample-assembler"\} 17$/m);
  assert.match(text, /^onemall_late_events\{service="sample-assembler"\} 3$/m);
});

test('gauges of partitions carry a label in the metrics and a number in the status, and go one by one', async () => {
  const meter = new StageMeter('x');
  meter.set('lag_ms', 9);
  for (const partition of [1, 11]) meter.setOfPartition(partition, 'lag_ms', 10 * partition);
  meter.setOfPartition(1, 'slowed', 0);
  assert.deepEqual(meter.status('running').values, {
    lag_ms: 9,
    lag_ms_p1: 10,
    lag_ms_p11: 110,
    slowed_p1: 0,
  });
  const lines = async () => (await meter.registry.metrics()).match(/^onemall_(partition_|lag_ms).*$/gm);
  assert.deepEqual(await lines(), [
    'onemall_lag_ms{service="x"} 9',
    'onemall_partition_lag_ms{partition="1",service="x"} 10',
    'onemall_partition_lag_ms{partition="11",service="x"} 110',
    'onemall_partition_slowed{partition="1",service="x"} 0',
  ]);
  meter.unsetPartition(1);
  assert.deepEqual(meter.status('running').values, { lag_ms: 9, lag_ms_p11: 110 });
  assert.deepEqual(await lines(), [
    'onemall_lag_ms{service="x"} 9',
    'onemall_partition_lag_ms{partition="11",service="x"} 110',
  ]);
});

test('latencies come as quantiles of all that were recorded, in milliseconds', () => {
  const meter = new StageMeter('x');
  for (let ms = 1; ms <= 1000; ms++) meter.recordLatency(ms);
  const { p50Ms, p99Ms } = meter.status('running');
  assert.ok(Math.abs(p50Ms! - 500) < 5, `${p50Ms}`);
  assert.ok(Math.abs(p99Ms! - 990) < 10, `${p99Ms}`);
});
