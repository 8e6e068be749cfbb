/** What the dashboard and the alerts ask of single partitions is there once a partition has been through everything. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ManualClock, StageMeter } from '@onemall/service-kit';
import { JoinMeter, type PartitionFacts } from '../src/adapters/join-meter.ts';
import { exposure, newOwner, Ports, time, work } from './owner-scene.ts';

const DEPLOY = path.join(import.meta.dirname, '../../../deploy');
/** For a look at one partition, or shown as a count of partitions. */
const ON_STATUS_ALONE = new Set([
  'duplicates',
  'history_disk_full',
  'replayed_records',
  'restored_from_snapshot',
  'slowed',
  'snapshot_bytes',
  'snapshot_ms',
]);
const FACTS: PartitionFacts = {
  watermarkMs: 400,
  openExposures: 3,
  waitingActions: 2,
  historyEvents: 5,
  users: 4,
  stateBytes: 6,
  historyDiskBytes: 7,
  areHistoriesStuck: false,
  isSlowed: true,
  waitsFor: 'clicks',
  lag: 8,
};

test('every figure of a partition that a panel or an alert names is published, with the partition as a label', async () => {
  const stageMeter = new StageMeter('sample-assembler');
  const meter = new JoinMeter(stageMeter, new ManualClock(1_000));
  meter.takingOver(3);
  meter.takenOver(3, { replayed: 9, tookMs: 10, withSnapshot: true });
  meter.observe(3, FACTS);
  const counts = { late: 1, orphans: 2, duplicates: 0, withoutSid: 0, dead: 0 };
  meter.committed(3, { numSamples: 0, causesMs: [], others: [], counts, tookMs: 11 });
  meter.snapshotWritten(3, { sizeBytes: 12, tookMs: 13 });
  meter.aborted(3);
  meter.publish();
  const text = await stageMeter.registry.metrics();
  const of = (name: string): string | undefined =>
    new RegExp(`^onemall_partition_${name}\\{partition="3",service="sample-assembler"\\} (\\S+)$`, 'm').exec(
      text,
    )?.[1];
  const shown = { watermark_ms: '400', watermark_lag_ms: '600', waits_for_clicks: '1', waits_for_buys: '0' };
  for (const [name, value] of Object.entries(shown)) assert.equal(of(name), value, name);
  assert.deepEqual([of('late_events'), of('orphan_events'), of('taking_over')], ['1', '2', '0']);
  const watched =
    readFileSync(`${DEPLOY}/grafana/dashboards/onemall.json`, 'utf8') +
    readFileSync(`${DEPLOY}/alerts.yml`, 'utf8');
  const names = new Set([...watched.matchAll(/onemall_partition_([a-z_]+)/g)].map(([, name]) => name!));
  assert.ok(names.size >= 12, `${[...names]}`);
  for (const name of names) assert.ok(of(name) !== undefined, `no onemall_partition_${name}`);
  // And a new figure is shown to operators, unless it is listed above.
  const shownNames = new Set(
    [...watched.matchAll(/onemall_(?:partition_)?([a-z_]+)/g)].map(([, name]) => name!),
  );
  const published = Object.keys(stageMeter.status('').values).map((name) => name.replace(/_p\d+$/, ''));
  for (const name of published)
    assert.ok(shownNames.has(name) || ON_STATUS_ALONE.has(name), `${name} is in no panel and no alert`);
});

test('a watermark that has not begun is behind since there are records that it cannot pass', () => {
  const stageMeter = new StageMeter('sample-assembler');
  const clock = new ManualClock(1_000_000);
  const meter = new JoinMeter(stageMeter, clock);
  const nothing = { watermarkMs: 0, openExposures: 0, waitingActions: 0, lag: 0, waitsFor: null };
  const lagAfter = (ms: number, facts: Partial<PartitionFacts>): number | undefined => {
    clock.advance(ms);
    meter.observe(3, { ...FACTS, ...nothing, ...facts });
    meter.publish();
    const { watermark_lag_ms, watermark_lag_ms_p3 } = stageMeter.status('').values;
    assert.equal(watermark_lag_ms_p3, watermark_lag_ms);
    return watermark_lag_ms;
  };
  meter.takingOver(3);
  // Nobody has sent anything: nothing stands, for days.
  assert.equal(lagAfter(0, {}), 0);
  assert.equal(lagAfter(86_400_000, {}), 0);
  // An open transaction on the first clicks, or no leader: the others wait.
  assert.equal(lagAfter(1_000, { lag: 8, waitsFor: 'clicks' }), 0);
  assert.equal(lagAfter(90_000, { lag: 9, waitsFor: 'clicks' }), 90_000);
  // Read now, and a table cannot be read to its end: still the same wait.
  assert.equal(lagAfter(10_000, { openExposures: 9 }), 100_000);
  assert.equal(lagAfter(5_000, { waitingActions: 1 }), 105_000);
  // All of it was bad input: nothing waits any more, and the next counts from its own beginning.
  assert.equal(lagAfter(1_000, {}), 0);
  assert.equal(lagAfter(1_000, { lag: 9 }), 0);
  assert.equal(lagAfter(2_000, { lag: 9 }), 2_000);
  // What was seen before a take-over tells nothing of the state after it.
  meter.takingOver(3);
  assert.equal(lagAfter(1_000, { lag: 9 }), 0);
  meter.forget(3);
  assert.equal(lagAfter(1_000, { lag: 9 }), 0);
  // It has begun, and is behind by event time.
  assert.equal(lagAfter(0, { lag: 9, watermarkMs: clock.nowMs() - 700 }), 700);
});

test('a new partition to which nobody has sent anything is not behind', async () => {
  const ports = new Ports();
  const { owner, clock, values } = newOwner(ports);
  await owner.open();
  for (const waitedMs of [0, 90_000]) {
    clock.advance(waitedMs);
    await work(ports, owner);
    assert.equal(values().watermark_lag_ms, 0);
  }
});

for (const [name, clicks] of Object.entries({
  'an open transaction': { highWatermark: 2 },
  'no leader': null,
}))
  test(`a new partition with ${name} on an input is behind since its first record`, async () => {
    const ports = new Ports();
    const { owner, clock, values } = newOwner(ports);
    await owner.open();
    ports.logs.exposures.push(exposure('e1', 1_000));
    for (const waitedMs of [0, 90_000]) {
      clock.advance(waitedMs);
      time.nowMs += 200;
      const parts = [ports.fetch('exposures', waitedMs === 0 ? 0 : 1), ports.fetch('buys', 0)];
      if (clicks) parts.push({ ...ports.fetch('clicks', 0), ...clicks });
      await owner.take(parts);
      owner.join(time.nowMs - 100);
      assert.equal(values().watermark_lag_ms, waitedMs);
    }
    assert.equal(values().waits_for_clicks_p0, 1);
  });
