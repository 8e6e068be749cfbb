/**
 * The state of one instance that owns four partitions, without Kafka: histories of many users, then millions of open
 * exposures, a snapshot of all of it, and a fresh process that goes on from there. Run as
 *
 *     node state-run.ts fill FOLDER USERS EVENTS_PER_USER EXPOSURES
 *     node state-run.ts restore FOLDER
 *
 * and it prints one line of JSON.
 */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { AttributionWindows } from '@onemall/event-time';
import { createLogger, FolderArtifactStore, StageMeter, systemClock } from '@onemall/service-kit';
import { HistoryDisk } from '../../services/sample-assembler/src/adapters/history-disk.ts';
import { JoinMeter } from '../../services/sample-assembler/src/adapters/join-meter.ts';
import { type Cut, loadSnapshot, Snapshots } from '../../services/sample-assembler/src/adapters/snapshots.ts';
import { sampleAssemblerConfig } from '../../services/sample-assembler/src/config.ts';
import { Catalogue } from '../../services/sample-assembler/src/stages/catalogue.ts';
import { PartitionJoin } from '../../services/sample-assembler/src/stages/join-partition.ts';
import { byTopic, LogEvent } from '../../services/sample-assembler/src/stages/log-record.ts';
import { InputMerge } from '../../services/sample-assembler/src/stages/take-in-order.ts';
import {
  ExposureSource,
  GRACE_MS,
  HOUR_MS,
  OUT_OF_ORDERNESS_MS,
  openVisits,
  SCENARIO,
  START_MS,
  type Visit,
  visitsBefore,
  WINDOWS,
} from './exposure-source.ts';
import { peakMiBOf } from './process-facts.ts';

const PARTITIONS = 4;
const MIB = 1 << 20;
const [mode, folder, ...numbers] = process.argv.slice(2);
if (!folder) throw new Error('Expected: state-run.ts fill|restore FOLDER ...');

const windows = new AttributionWindows({
  scenarios: { [SCENARIO]: WINDOWS },
  graceMs: GRACE_MS,
  outOfOrdernessMs: OUT_OF_ORDERNESS_MS,
});
const rules = { windows, historyLength: 50, emitPositives: true, sampleHeader: Buffer.alloc(5) };
const { historyCacheMb, historyFolder } = sampleAssemblerConfig();
const openHistories = (): HistoryDisk => new HistoryDisk(historyFolder);
const clock = systemClock;
const meter = new JoinMeter(new StageMeter('bench'), clock);
const log = createLogger('bench', 'warn');
const artifacts = new FolderArtifactStore(folder);
const goesOn = new AbortController().signal;
const snapshots = new Snapshots({
  ...{ artifacts, namespace: 'bench', rules, openHistories, kept: 1, clock, log, meter },
});
const catalogue = new Catalogue();
const maxBytes = historyCacheMb * MIB;
const newJoin = (partition: number, histories: HistoryDisk, watermarkMs: number): PartitionJoin =>
  new PartitionJoin(partition, rules, catalogue, { watermarkMs }, { cold: histories, maxBytes });
const newMerge = (): InputMerge =>
  new InputMerge(
    { outOfOrdernessMs: 500, inputFreshnessMs: 1_000, maxDelayMs: 1_000 },
    { exposures: 0, clicks: 0, buys: 0 },
  );
const rssMiB = (): number => Math.round(process.memoryUsage.rss() / MIB);
const seconds = (sinceMs: number): number => Math.round((performance.now() - sinceMs) / 10) / 100;
const cpuUs = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return user + system;
};

const source = new ExposureSource();
const event = new LogEvent();
function exposureOf(visit: Visit): LogEvent {
  const bytes = source.write(visit);
  event.offset = visit.exposure;
  event.payload.bytes = bytes;
  event.payload.start = 0;
  event.payload.end = bytes.length;
  event.scenario = 0;
  if (!event.exposure.read(bytes, 0, bytes.length)) throw new Error('the exposure cannot be read');
  return event;
}

async function fill(numUsers: number, eventsPerUser: number, numExposures: number): Promise<object> {
  const disks = Array.from({ length: PARTITIONS }, openHistories);
  const joins = disks.map((disk, partition) => newJoin(partition, disk, START_MS));
  let startedMs = performance.now();
  let cpu = process.cpuUsage();
  const numEvents = numUsers * eventsPerUser;
  for (const visit of visitsBefore(numUsers, numEvents))
    joins[visit.user % PARTITIONS]!.remember(exposureOf(visit));
  const histories = {
    historyEvents: numEvents,
    historySeconds: seconds(startedMs),
    historyCpuUsPerEvent: cpuUs(cpu) / numEvents,
    rssAfterHistoriesMiB: rssMiB(),
  };
  startedMs = performance.now();
  cpu = process.cpuUsage();
  for (const visit of openVisits(numUsers, numExposures, numEvents))
    joins[visit.user % PARTITIONS]!.feed(exposureOf(visit));
  const open = {
    exposureSeconds: seconds(startedMs),
    exposureCpuUsPerEvent: cpuUs(cpu) / numExposures,
    openExposures: joins.reduce((sum, join) => sum + join.openExposures, 0),
    historyUsers: joins.reduce((sum, join) => sum + join.users, 0),
    stateMiB: Math.round(joins.reduce((sum, join) => sum + join.stateBytes, 0) / MIB),
    historyDiskMiB: Math.round(disks.reduce((sum, disk) => sum + disk.sizeBytes, 0) / MIB),
    rssMiB: rssMiB(),
  };
  startedMs = performance.now();
  const standstill = watchStandstill();
  for (const [partition, join] of joins.entries())
    await snapshots.write(
      partition,
      committedAt(numExposures),
      { join, merge: newMerge(), histories: disks[partition]! },
      true,
    );
  const snapshot = { snapshotSeconds: seconds(startedMs), ...standstill() };
  startedMs = performance.now();
  const one = exposureOf({ exposure: numEvents + numExposures, user: 7, timeMs: START_MS + HOUR_MS });
  joins[7 % PARTITIONS]!.feed(one);
  await snapshots.write(
    7 % PARTITIONS,
    committedAt(numExposures + 1),
    { join: joins[7 % PARTITIONS]!, merge: newMerge(), histories: disks[7 % PARTITIONS]! },
    true,
  );
  const again = { secondSnapshotOfOnePartitionSeconds: seconds(startedMs), peakMiB: peakMiBOf(process.pid) };
  for (const disk of disks) disk.close();
  return { ...histories, ...open, ...snapshot, ...again };
}

const committedAt = (offset: number): Cut => ({
  offsets: byTopic(() => offset),
  isDurable: Promise.resolve(true),
});

/** The longest time for which nothing else got its turn. */
function watchStandstill(): () => { longestStandstillMs: number } {
  let lastMs = performance.now();
  let longestMs = 0;
  const look = (): void => {
    const nowMs = performance.now();
    longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
  };
  const timer = setInterval(look, 1);
  return () => {
    look();
    clearInterval(timer);
    return { longestStandstillMs: Math.round(longestMs) };
  };
}

async function restore(): Promise<object> {
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  let openExposures = 0;
  let historyEvents = 0;
  await Promise.all(
    Array.from({ length: PARTITIONS }, async (_, partition) => {
      const end = Number.MAX_SAFE_INTEGER;
      const far = { offsets: byTopic(() => end), watermarkMs: end, mayGoBack: false };
      const found = await snapshots.newest(partition, far, async () => true, goesOn);
      if (!found) throw new Error(`There is no usable snapshot of partition ${partition}`);
      const join = newJoin(partition, found.histories, found.watermarkMs);
      loadSnapshot(found, join, newMerge(), performance.now());
      openExposures += join.openExposures;
      historyEvents += join.historyEvents;
      found.histories.close();
    }),
  );
  return {
    readySeconds: seconds(startedMs),
    readyCpuSeconds: cpuUs(cpu) / 1e6,
    ...{ openExposures, historyEvents, rssMiB: rssMiB(), peakMiB: peakMiBOf(process.pid) },
  };
}

const [numUsers = 0, eventsPerUser = 0, numExposures = 0] = numbers.map(Number);
const answer = mode === 'fill' ? await fill(numUsers, eventsPerUser, numExposures) : await restore();
writeFileSync(path.join(folder, `${mode}.json`), JSON.stringify(answer));
