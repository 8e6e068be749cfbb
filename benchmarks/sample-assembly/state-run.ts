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
import { topicType } from '@onemall/contracts';
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
import { peakMiBOf } from './process-facts.ts';

const PARTITIONS = 4;
const MIB = 1 << 20;
const START_MS = 1_767_225_600_000;
const HOUR_MS = 3_600_000;
const SCENARIO = 'product_card';
const WINDOW_MS = 24 * HOUR_MS;
const FLOATS = Array.from({ length: 36 }, (_, i) => i / 7);
const INTS = Array.from({ length: 20 }, (_, i) => i * 37);
const [mode, folder, ...numbers] = process.argv.slice(2);
if (!folder) throw new Error('Expected: state-run.ts fill|restore FOLDER ...');

const windows = new AttributionWindows({
  scenarios: { [SCENARIO]: { clickWindowMs: HOUR_MS, buyWindowMs: WINDOW_MS } },
  graceMs: 120_000,
  outOfOrdernessMs: 500,
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

/** One encoded exposure whose ids and times are written over for each event: making it anew would cost more than the join. */
class ExposureSource {
  readonly #event = new LogEvent();
  readonly #bytes: Buffer;
  readonly #at: { id: number; user: number; item: number; request: number };
  #seed = 1;

  constructor() {
    const long = (text: string): string => text.padEnd(16, '0');
    const ids = {
      exposureId: long('E'),
      userId: long('U'),
      itemId: long('I').slice(0, 8),
      requestId: long('R'),
    };
    this.#bytes = topicType('exposures').toBuffer({
      ...ids,
      ...{ scenario: SCENARIO, eventTimeMs: START_MS, requestTimeMs: START_MS },
      ...{ position: 1, watchMs: null, priceCents: 1_999, requestFeatures: { ints: INTS, floats: FLOATS } },
    });
    const text = this.#bytes.toString('latin1');
    this.#at = {
      id: text.indexOf(ids.exposureId),
      user: text.indexOf(ids.userId),
      item: text.indexOf(ids.itemId),
      request: text.indexOf(ids.requestId),
    };
  }

  make(exposure: number, user: number, timeMs: number): LogEvent {
    const { id, user: userAt, item, request } = this.#at;
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) >>> 0;
    this.#bytes.write(exposure.toString(16).padStart(15, '0'), id + 1, 'latin1');
    this.#bytes.write(user.toString(16).padStart(15, '0'), userAt + 1, 'latin1');
    this.#bytes.write((this.#seed % 200_000).toString(16).padStart(7, '0'), item + 1, 'latin1');
    this.#bytes.write(
      Math.floor(exposure / 4)
        .toString(16)
        .padStart(15, '0'),
      request + 1,
      'latin1',
    );
    const event = this.#event;
    event.offset = exposure;
    event.payload.bytes = this.#bytes;
    event.payload.start = 0;
    event.payload.end = this.#bytes.length;
    event.scenario = 0;
    if (!event.exposure.read(this.#bytes, 0, this.#bytes.length))
      throw new Error('the exposure cannot be read');
    event.exposure.timeMs = timeMs;
    event.exposure.requestTimeMs = timeMs;
    return event;
  }
}

async function fill(numUsers: number, eventsPerUser: number, numExposures: number): Promise<object> {
  const source = new ExposureSource();
  const disks = Array.from({ length: PARTITIONS }, openHistories);
  const joins = disks.map((disk, partition) => newJoin(partition, disk, START_MS));
  let startedMs = performance.now();
  let cpu = process.cpuUsage();
  const numEvents = numUsers * eventsPerUser;
  // Users come by turns at random, the worst case for a cache; what they did is spread over the days before.
  let user = 1;
  for (let i = 0; i < numEvents; i++) {
    user = (user * 48_271) % 2_147_483_647;
    const event = source.make(
      i,
      user % numUsers,
      START_MS - 72 * HOUR_MS + Math.floor((i / numEvents) * 48 * HOUR_MS),
    );
    joins[(user % numUsers) % PARTITIONS]!.remember(event);
  }
  const histories = {
    historyEvents: numEvents,
    historySeconds: seconds(startedMs),
    historyCpuUsPerEvent: cpuUs(cpu) / numEvents,
    rssAfterHistoriesMiB: rssMiB(),
  };
  startedMs = performance.now();
  cpu = process.cpuUsage();
  for (let i = 0; i < numExposures; i++) {
    user = (user * 48_271) % 2_147_483_647;
    const timeMs = START_MS + Math.floor((i / numExposures) * HOUR_MS);
    joins[(user % numUsers) % PARTITIONS]!.feed(source.make(numEvents + i, user % numUsers, timeMs));
  }
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
  const one = source.make(numEvents + numExposures, 7 % numUsers, START_MS + HOUR_MS);
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
