/** What the dashboard and the alerts ask of single partitions is there once a partition has been through everything. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ManualClock, StageMeter } from '@onemall/service-kit';
import { JoinMeter, type PartitionFacts } from '../src/adapters/join-meter.ts';

const DEPLOY = path.join(import.meta.dirname, '../../../deploy');
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
});
