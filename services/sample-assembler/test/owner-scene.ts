/** A partition's owner with ports that write down what is asked of them, and a log, artifacts and a disk that break on demand. */
import { tmpdir } from 'node:os';
import { BadRecordError, type Exposure, topicType } from '@onemall/contracts';
import {
  type FetchedPartition,
  KafkaIoError,
  type LogReader,
  type Position,
  type RawRecord,
  type RecordCursor,
  type TopicPartition,
  type TypedRecord,
} from '@onemall/kafka-io';
import {
  ArtifactError,
  type ArtifactFile,
  type ArtifactRef,
  type ArtifactStore,
  artifactSha256,
  createLogger,
  ManualClock,
  StageMeter,
} from '@onemall/service-kit';
import { HistoryDisk } from '../src/adapters/history-disk.ts';
import { JoinMeter } from '../src/adapters/join-meter.ts';
import { type OwnerDeps, PartitionOwner } from '../src/adapters/partition-owner.ts';
import { Snapshots } from '../src/adapters/snapshots.ts';
import type { StartFacts } from '../src/adapters/start-checks.ts';
import { StateMemory } from '../src/adapters/state-memory.ts';
import { type Loss, sampleAssemblerConfig } from '../src/config.ts';
import { Catalogue } from '../src/stages/catalogue.ts';
import { LOG_TOPICS, type LogTopic } from '../src/stages/log-record.ts';
import type { RecordPass } from '../src/stages/take-in-order.ts';
import { passOver, wireBytes } from './byte-join.ts';
import { RULES } from './drive.ts';

export type Commit = { topics: string[]; positions: readonly Position[] };

export const exposure = (exposureId: string, eventTimeMs: number, userId = 'u1'): Exposure => ({
  exposureId,
  userId,
  itemId: 'i1',
  scenario: 'product_card',
  eventTimeMs,
  requestId: exposureId,
  requestTimeMs: eventTimeMs,
  position: 0,
  watchMs: null,
  priceCents: 1,
  requestFeatures: { ints: [], floats: [] },
});

/** Less than the histories of two users: they go to disk by turns. */
export const NO_CACHE_MB = 300 / (1 << 20);
/** Exposures of forty users, who come by turns. */
export const manyUsers = (from: number, to: number): Exposure[] =>
  Array.from({ length: to - from }, (_, i) =>
    exposure(`e${from + i}`, 1_000 + from + i, `u${(from + i) % 40}`),
  );

/** A log of one partition in memory, committed offsets, and everything that was asked for, in order. */
export class Ports {
  readonly calls: string[] = [];
  readonly logs: Record<LogTopic, (Exposure | 'poison')[]> = { exposures: [], clicks: [], buys: [] };
  readonly transactions: Commit[] = [];
  offsets: Position[] = [];
  samplesEnd = 0;
  samples: Exposure[] = [];
  failNext: Error | null = null;
  /** Commits wait for it. */
  mayCommit = Promise.resolve();
  /** So does the coordinator with its answers, and leaders with theirs when asked where a log begins. */
  mayOpen = Promise.resolve();
  mayFence = Promise.resolve();
  mayReadOffsets = Promise.resolve();
  mayAssign = Promise.resolve();
  leadersAreAway = false;
  registryIsAway: Promise<void> | null = null;
  schemaIsLearnt = false;

  readonly io: OwnerDeps['io'] = {
    openTransactionalWriter: async (id) => {
      this.calls.push(`open ${id}`);
      await this.mayOpen;
      return {
        init: async () => {
          this.calls.push('fence');
          await this.mayFence;
        },
        commit: async (transaction) => {
          this.calls.push('commit');
          await this.mayCommit;
          const failure = this.failNext;
          this.failNext = null;
          if (failure) throw failure;
          const { records, blocks = [], offsets } = transaction;
          const positions = offsets!.positions;
          const topics = [
            ...records.map((r) => r.topic),
            ...blocks.flatMap((b) => Array.from({ length: b.count }, () => b.topic)),
          ];
          for (const block of blocks) block.copied?.();
          this.transactions.push({ topics, positions });
          this.offsets = [...positions];
        },
        close: async () => void this.calls.push('close writer'),
      };
    },
    committed: async (_group, partitions) => {
      this.calls.push('read offsets');
      await this.mayReadOffsets;
      const isThat = (o: Position, p: TopicPartition) => o.topic === p.topic && o.partition === p.partition;
      return partitions.map((p) => this.offsets.find((o) => isThat(o, p)) ?? { ...p, offset: -1 });
    },
    endOffsets: async (topic) => [{ topic, partition: 0, offset: this.samplesEnd }],
    openReader: async () => this.reader(),
    isOwnSchema: () => (this.schemaIsLearnt ? true : undefined),
    learnSchema: async () => {
      await this.registryIsAway;
      this.schemaIsLearnt = true;
    },
    decodeNow: <T>(topic: T, record: RawRecord) => {
      if (record.value?.toString() === 'poison') throw new BadRecordError('UNDECODABLE', 'poison came');
      const value = topicType('exposures').fromBuffer(record.value!.subarray(5));
      return { ...record, topic, key: 'u1', value } as unknown as TypedRecord<never>;
    },
    deadLetter: (record, { reason, message }) => ({
      topic: 'dead-letters',
      key: '',
      value: {
        service: 'test',
        reason,
        detail: message,
        topic: record.topic,
        partition: 0,
        offset: record.offset,
        appendTimeMs: 0,
        key: null,
        payload: record.value,
        createdMs: 0,
      },
    }),
  };

  reader(): LogReader {
    const at = new Map<LogTopic, number>();
    return {
      assign: async (positions, { signal } = {}) => {
        await this.mayAssign;
        if (signal?.aborted) return;
        for (const p of positions) {
          this.calls.push(`assign ${p.topic} ${p.offset}`);
          at.set(p.topic as LogTopic, Math.max(0, p.offset));
        }
      },
      unassign: (partitions) => {
        for (const p of partitions) at.delete(p.topic as LogTopic);
      },
      pause: (partitions) => {
        for (const { topic } of partitions)
          if (!at.has(topic as LogTopic)) throw new KafkaIoError(`${topic} is not assigned`);
      },
      resume: () => {},
      poll: async () => {
        if (!this.leadersAreAway) return [...at].map(([topic, offset]) => this.fetch(topic, offset, at));
        await new Promise(setImmediate);
        return [];
      },
      close: async () => {},
    };
  }

  fetch(topic: LogTopic, from: number, at = new Map<LogTopic, number>()): FetchedPartition {
    // Any other topic is that of the samples.
    const log = this.logs[topic] ?? this.samples;
    const end = topic in this.logs ? log.length : this.samplesEnd;
    at.set(topic, end);
    const records = log.slice(from).map((value, i) => ({
      topic,
      partition: 0,
      offset: from + i,
      timestampMs: 1e12,
      key: Buffer.from(typeof value === 'string' ? 'u1' : value.userId),
      value: typeof value === 'string' ? Buffer.from(value) : wireBytes('exposures', value),
    }));
    const part = { topic, partition: 0, records, nextOffset: end, highWatermark: end, lastStableOffset: end };
    const cursor = () => cursorOf(records) as unknown as RecordCursor;
    return { ...part, ends: [], sizeBytes: 0, sentAtMs: time.nowMs, cursor, release: () => {} };
  }
}
/** The monotonic clock, which only tests move. */
export const time = { nowMs: 0 };

const cursorOf = (records: readonly RawRecord[]): RecordPass =>
  passOver(
    records.map(({ offset, timestampMs, value }) => ({
      topic: 'exposures',
      partition: 0,
      offset,
      appendTimeMs: timestampMs,
      payload: value,
      event: exposure('', 0),
    })),
  );

/** In memory, in order of names, and as breakable as a disk. */
export class Artifacts implements ArtifactStore {
  readonly files = new Map<string, Map<string, Buffer>>();
  /** Writing waits for it. */
  mayWrite = Promise.resolve();
  async put(uri: string, files: ReadonlyMap<string, ArtifactFile>, sha256 = artifactSha256(files)) {
    await this.mayWrite;
    const copied = [...files].map(([name, file]): [string, Buffer] => [
      name,
      Buffer.concat(file instanceof Uint8Array ? [file] : file),
    ]);
    this.files.set(uri, new Map(copied));
    return { uri, sha256 };
  }
  async get({ uri, sha256 }: ArtifactRef) {
    const files = this.files.get(uri)!;
    if (artifactSha256(files) !== sha256) throw new ArtifactError(`${uri} is corrupt`);
    return files;
  }
  async list(folder: string) {
    return [...this.files.keys()].filter((uri) => uri.startsWith(`${folder}/`)).sort();
  }
  async remove(uri: string) {
    this.files.delete(uri);
  }
}

export function newOwner(
  ports: Ports,
  more: {
    artifacts?: Artifacts;
    stateMemory?: StateMemory;
    maxBufferedRecords?: number;
    snapshotMs?: number;
    historyCacheMb?: number;
    historyLength?: number;
    folder?: string;
    facts?: StartFacts;
    acceptLoss?: Loss[];
  } = {},
): {
  owner: PartitionOwner;
  clock: ManualClock;
  failures: unknown[];
  values: () => Record<string, number>;
} {
  const clock = new ManualClock(1e12 + time.nowMs);
  const failures: unknown[] = [];
  const stageMeter = new StageMeter('test');
  const meter = new JoinMeter(stageMeter, clock);
  const log = createLogger('test', 'silent');
  const {
    artifacts = new Artifacts(),
    folder = tmpdir(),
    stateMemory = new StateMemory(Number.POSITIVE_INFINITY),
    facts = { numPartitions: 1, samplesAlign: true, numPartitionsBefore: 1 },
    ...settings
  } = more;
  const openHistories = (): HistoryDisk => new HistoryDisk(folder, 2_000);
  const rules = { ...RULES, recordsPerMark: 1, historyLength: more.historyLength ?? RULES.historyLength };
  const snapshots = { artifacts, namespace: 'test', rules, openHistories, kept: 2, clock, log, meter };
  const deps: OwnerDeps = {
    io: ports.io,
    config: { ...sampleAssemblerConfig(), ...settings },
    rules,
    catalogue: new Catalogue(),
    reader: ports.reader(),
    groupId: 'test.sample-assembler',
    facts,
    clock,
    monotonicMs: () => time.nowMs,
    meter,
    keepUsersMs: 1e9,
    snapshots: new Snapshots(snapshots),
    stateMemory,
    openHistories,
    log,
    fail: (error) => void failures.push(error),
  };
  const values = (): Record<string, number> => {
    meter.publish();
    return stageMeter.status('').values;
  };
  return { owner: new PartitionOwner(0, deps), clock, failures, values };
}

/** Lets the pause after a failed commit pass. */
export async function becomesLive(owner: PartitionOwner, clock: ManualClock): Promise<void> {
  while (!owner.isLive) {
    await new Promise(setImmediate);
    clock.advance(1_000);
  }
}

/** Three polls, so that the watermark has everything and passes the tables' gate. */
export async function work(ports: Ports, owner: PartitionOwner): Promise<void> {
  for (let turn = 0; turn < 3; turn++) {
    time.nowMs += 200;
    const from = (topic: LogTopic): number =>
      turn === 0 ? (ports.offsets.find((o) => o.topic === topic)?.offset ?? 0) : ports.logs[topic].length;
    await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, from(topic))));
    owner.join(time.nowMs - 100);
    owner.uncovered()?.();
    owner.join(time.nowMs - 50);
  }
}
