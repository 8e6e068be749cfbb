/** How a partition is taken over and what a transaction holds: the order of calls, with ports that write them down. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BadRecordError, type Exposure, topicType } from '@onemall/contracts';
import {
  FencedError,
  type FetchedPartition,
  type LogReader,
  type Position,
  type RawRecord,
  type RecordCursor,
  TransactionFailedError,
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
import { JoinMeter } from '../src/adapters/join-meter.ts';
import { type OwnerDeps, PartitionOwner } from '../src/adapters/partition-owner.ts';
import { Snapshots } from '../src/adapters/snapshots.ts';
import { sampleAssemblerConfig } from '../src/config.ts';
import { Catalogue } from '../src/stages/catalogue.ts';
import { LOG_TOPICS, type LogTopic } from '../src/stages/log-record.ts';
import type { RecordPass } from '../src/stages/take-in-order.ts';
import { passOver, wireBytes } from './byte-join.ts';
import { RULES } from './drive.ts';

type Commit = { topics: string[]; positions: readonly Position[] };

const exposure = (exposureId: string, eventTimeMs: number): Exposure => ({
  exposureId,
  userId: 'u1',
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

/** A log of one partition in memory, committed offsets, and everything that was asked for, in order. */
class Ports {
  readonly calls: string[] = [];
  readonly logs: Record<LogTopic, (Exposure | 'poison')[]> = { exposures: [], clicks: [], buys: [] };
  readonly transactions: Commit[] = [];
  offsets: Position[] = [];
  samplesEnd = 0;
  samples: string[] = [];
  failNext: Error | null = null;
  registryIsAway: Promise<void> | null = null;
  schemaIsLearnt = false;

  readonly io: OwnerDeps['io'] = {
    openTransactionalWriter: async (id) => {
      this.calls.push(`open ${id}`);
      return {
        init: async () => void this.calls.push('fence'),
        commit: async (transaction) => {
          this.calls.push('commit');
          const failure = this.failNext;
          this.failNext = null;
          if (failure) throw failure;
          const { records, blocks = [], offsets } = transaction;
          const positions = offsets!.positions;
          const topics = [
            ...records.map((r) => r.topic),
            ...blocks.flatMap((b) => Array.from({ length: b.count }, () => b.topic)),
          ];
          this.transactions.push({ topics, positions });
          this.offsets = [...positions];
        },
        close: async () => void this.calls.push('close writer'),
      };
    },
    committed: async (_group, partitions) => {
      this.calls.push('read offsets');
      return partitions.map((p) => this.offsets.find((o) => o.topic === p.topic) ?? { ...p, offset: -1 });
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
      assign: async (positions) => {
        for (const p of positions) {
          this.calls.push(`assign ${p.topic} ${p.offset}`);
          at.set(p.topic as LogTopic, Math.max(0, p.offset));
        }
      },
      unassign: (partitions) => {
        for (const p of partitions) at.delete(p.topic as LogTopic);
      },
      pause: () => {},
      resume: () => {},
      poll: async () => [...at].map(([topic, offset]) => this.fetch(topic, offset, at)),
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
      key: Buffer.from('u1'),
      value: typeof value === 'string' ? Buffer.from(value) : wireBytes('exposures', value),
    }));
    const part = { topic, partition: 0, records, nextOffset: end, highWatermark: end, lastStableOffset: end };
    const cursor = () => cursorOf(records) as unknown as RecordCursor;
    return { ...part, sizeBytes: 0, sentAtMs: now, cursor };
  }
}
let now = 0;

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
class Artifacts implements ArtifactStore {
  readonly files = new Map<string, Map<string, Buffer>>();
  async put(uri: string, files: ReadonlyMap<string, ArtifactFile>, sha256 = artifactSha256(files)) {
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

function newOwner(
  ports: Ports,
  more: { artifacts?: Artifacts; maxStateMb?: number; snapshotMs?: number } = {},
): {
  owner: PartitionOwner;
  clock: ManualClock;
  failures: unknown[];
  values: () => Record<string, number>;
} {
  const clock = new ManualClock(1e12);
  const failures: unknown[] = [];
  const stageMeter = new StageMeter('test');
  const meter = new JoinMeter(stageMeter, clock);
  const log = createLogger('test', 'silent');
  const { artifacts = new Artifacts(), ...settings } = more;
  const deps: OwnerDeps = {
    io: ports.io,
    config: { ...sampleAssemblerConfig(), ...settings },
    rules: RULES,
    catalogue: new Catalogue(),
    reader: ports.reader(),
    groupId: 'test.sample-assembler',
    facts: { numPartitions: 1, samplesAlign: true },
    clock,
    monotonicMs: () => now,
    meter,
    keepUsersMs: 1e9,
    snapshots: new Snapshots({ artifacts, namespace: 'test', rules: RULES, kept: 2, clock, log, meter }),
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
async function becomesLive(owner: PartitionOwner, clock: ManualClock): Promise<void> {
  while (!owner.isLive) {
    await new Promise(setImmediate);
    clock.advance(1_000);
  }
}

/** Three polls, so that the watermark has everything and passes the tables' gate. */
async function work(ports: Ports, owner: PartitionOwner): Promise<void> {
  for (let turn = 0; turn < 3; turn++) {
    now += 200;
    const from = (topic: LogTopic): number =>
      turn === 0 ? (ports.offsets.find((o) => o.topic === topic)?.offset ?? 0) : ports.logs[topic].length;
    await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, from(topic))));
    owner.join(now - 100);
    owner.uncovered()?.();
    owner.join(now - 50);
  }
}

test('invariant 5: the old owner is fenced before its offsets are read', async () => {
  const ports = new Ports();
  const { owner } = newOwner(ports);
  await owner.open();
  assert.deepEqual(ports.calls.slice(0, 3), ['open test.sample-assembler-0', 'fence', 'read offsets']);
  assert.equal(owner.isLive, true);
});

test('invariants 2 and 12: samples, late events, dead letters and the three offsets are one transaction', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000), 'poison', exposure('e2', 60_000), exposure('e3', 1_500));
  const { owner } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  await owner.flush();
  // e1 has closed below the watermark that e2 moved; what comes for that time now is late.
  ports.logs.exposures.push(exposure('e4', 2_000));
  await work(ports, owner);
  await owner.flush();
  const topics = ports.transactions.map((t) => t.topics.sort());
  assert.deepEqual(topics, [['dead-letters', 'training-samples', 'training-samples'], ['late-events']]);
  for (const { positions } of ports.transactions)
    assert.deepEqual(
      positions.map((p) => p.topic),
      ['exposures', 'clicks', 'buys'],
    );
  assert.equal(ports.offsets[0]!.offset, 5);
  assert.match(ports.offsets[0]!.metadata!, /^59500,\d+,1$/);
});

test('invariants 3 and 4: a commit of unknown outcome drops the state and takes the partition over anew', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 60_000));
  const { owner, clock, failures } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  ports.failNext = new TransactionFailedError('the connection ended before the answer');
  ports.calls.length = 0;
  await owner.flush();
  assert.equal(owner.isLive, false);
  assert.equal(owner.neededFromMs, null);
  await becomesLive(owner, clock);
  assert.equal(owner.neededFromMs, -RULES.windows.knownSpanMs);
  assert.deepEqual(
    ports.calls.filter((call) => !call.startsWith('assign')),
    ['commit', 'close writer', 'open test.sample-assembler-0', 'fence', 'read offsets'],
  );
  // Nothing was committed, so all of it comes again.
  assert.ok(ports.calls.includes('assign exposures -2'));
  await work(ports, owner);
  await owner.flush();
  assert.deepEqual(
    ports.transactions.map((t) => t.topics.length),
    [1],
  );
  assert.deepEqual(failures, []);
});

test('invariant 4: when a failed commit had in truth succeeded, nothing leaves twice', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 60_000));
  const { owner, clock } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  await owner.flush();
  const committed = ports.offsets;
  ports.logs.exposures.push(exposure('e3', 61_000));
  await work(ports, owner);
  ports.failNext = new TransactionFailedError('no answer');
  const flushed = owner.flush();
  ports.offsets = [{ ...committed[0]!, offset: 3 }, ...committed.slice(1)];
  await flushed;
  await becomesLive(owner, clock);
  await work(ports, owner);
  await owner.flush();
  assert.equal(
    ports.transactions.length,
    1,
    'the third exposure is committed and still open: nothing is new',
  );
});

test('invariant 3: an answer that was fetched for the dropped state never enters the new one', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 60_000));
  const { owner, clock } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  // A part of the next poll, behind what is joined, waits for its turn while the commit fails.
  ports.logs.exposures.push(exposure('e3', 61_000));
  now += 200;
  const waiting = LOG_TOPICS.map((topic) => ports.fetch(topic, ports.logs[topic].length));
  now += 200;
  ports.failNext = new TransactionFailedError('no answer');
  await owner.flush();
  await becomesLive(owner, clock);
  await owner.take(waiting);
  owner.join(now);
  await owner.flush();
  assert.equal(ports.transactions.length, 0, 'nothing was read since the partition was taken over');
  await work(ports, owner);
  await owner.flush();
  assert.equal(ports.offsets[0]!.offset, 3);
  assert.deepEqual(
    ports.transactions.map((t) => t.topics.length),
    [1],
    'the sample of e1 is there',
  );
});

test('invariant 3: after a failed commit the owner pauses, and giving it up ends the pause', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner, failures } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  ports.failNext = new TransactionFailedError('no answer');
  ports.calls.length = 0;
  await owner.flush();
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  assert.deepEqual(ports.calls, ['commit', 'close writer']);
  await owner.close();
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  assert.equal(owner.isLive, false);
  assert.deepEqual(ports.calls, ['commit', 'close writer']);
  assert.deepEqual(failures, []);
});

test('invariant 1: a fenced owner waits before it takes the partition back', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner, clock } = newOwner(ports);
  await owner.open();
  await work(ports, owner);
  ports.failNext = new FencedError('a newer owner has the id');
  await owner.flush();
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  assert.equal(owner.isLive, false);
  clock.advance(10_000);
  while (!owner.isLive) await new Promise(setImmediate);
  await owner.close();
  assert.equal(owner.isLive, false);
});

test('invariant 12: while the registry is away decoding waits, and no dead letter is made', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner } = newOwner(ports);
  await owner.open();
  let back = (): void => {};
  ports.registryIsAway = new Promise((resolve) => {
    back = resolve;
  });
  const working = work(ports, owner);
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  await owner.flush();
  assert.equal(ports.transactions.length, 0);
  back();
  await working;
  await owner.flush();
  assert.deepEqual(
    ports.transactions.map((t) => t.topics),
    [[]],
  );
});

test('samples without committed offsets refuse the start', async () => {
  const ports = new Ports();
  ports.samplesEnd = 7;
  ports.samples = ['sample'];
  const { owner } = newOwner(ports);
  await assert.rejects(
    owner.open(),
    /no committed offsets for partition 0 .* ONEMALL_ACCEPT_LOSS=missing-commits/s,
  );
});

test('an end of the samples that only aborted transactions moved does not refuse the start', async () => {
  const ports = new Ports();
  ports.samplesEnd = 7;
  const { owner } = newOwner(ports);
  await owner.open();
  assert.equal(owner.isLive, true);
});

/** An owner that has committed some and left a snapshot, and what came after it. */
async function finished(): Promise<{ ports: Ports; artifacts: Artifacts }> {
  const ports = new Ports();
  const artifacts = new Artifacts();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 60_000));
  const { owner } = newOwner(ports, { artifacts });
  await owner.open();
  await work(ports, owner);
  await owner.close();
  assert.equal(artifacts.files.size, 1);
  ports.calls.length = 0;
  return { ports, artifacts };
}

test('a new owner goes on from the snapshot that the last one left, and reads the log from there', async () => {
  const { ports, artifacts } = await finished();
  const { owner, values } = newOwner(ports, { artifacts });
  await owner.open();
  assert.ok(!ports.calls.includes('assign exposures -2'), String(ports.calls));
  assert.equal(values().restored_from_snapshot_p0, 1);
  assert.equal(values().replayed_records_p0, 0);
  ports.logs.exposures.push(exposure('e2', 60_000), exposure('e3', 120_000));
  await work(ports, owner);
  await owner.flush();
  // The copy of e2 is known, e2 itself has left, e3 is open.
  assert.equal(values().open_exposures, 1);
  assert.equal(values().duplicates, 1);
  assert.deepEqual(ports.transactions.at(-1)?.topics, ['training-samples']);
});

test('a damaged or missing snapshot is passed over: an older one or the log takes its place, and it is counted', async () => {
  const damage: ((artifacts: Artifacts) => void)[] = [
    (a) => {
      for (const files of a.files.values()) files.get('state')![300]! ^= 1;
    },
    (a) => {
      for (const files of a.files.values()) files.delete('Slabs-0');
    },
    (a) => {
      // Whole as far as its sha256 goes, and senseless.
      const files = new Map([['state', Buffer.from([255, 255, 255, 255])]]);
      const [uri] = a.files.keys();
      a.files.clear();
      a.files.set(`${uri!.slice(0, uri!.lastIndexOf('-'))}-${artifactSha256(files)}`, files);
    },
    (a) => a.files.clear(),
  ];
  for (const [i, change] of damage.entries()) {
    const { ports, artifacts } = await finished();
    change(artifacts);
    const { owner, values } = newOwner(ports, { artifacts });
    await owner.open();
    assert.ok(ports.calls.includes('assign exposures -2'), `damage ${i}: ${ports.calls}`);
    assert.equal(values().snapshots_refused, i === 3 ? 0 : 1);
    assert.equal(values().restored_from_snapshot_p0, 0);
    ports.logs.exposures.push(exposure('e2', 60_000));
    await work(ports, owner);
    assert.equal(values().open_exposures, 1);
    await owner.flush();
    assert.equal(values().duplicates, 1);
  }
});

test('a snapshot past the committed offsets, or of another life of the topics, is never used', async () => {
  const { ports, artifacts } = await finished();
  const committed = ports.offsets;
  ports.offsets = committed.map((o) => ({ ...o, offset: Math.min(o.offset, 1) }));
  const { owner, values } = newOwner(ports, { artifacts });
  await owner.open();
  assert.equal(values().restored_from_snapshot_p0, 0);
  assert.equal(artifacts.files.size, 1);
  ports.offsets = [];
  const first = newOwner(ports, { artifacts });
  await first.owner.open();
  assert.equal(
    artifacts.files.size,
    0,
    'nothing was ever committed: what is there is of topics that are gone',
  );
});

test('snapshots are taken in their time, the newest two stay, and joining waits while one is written', async () => {
  const ports = new Ports();
  const artifacts = new Artifacts();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner, clock, values } = newOwner(ports, { artifacts, snapshotMs: 1_000 });
  await owner.open();
  for (let i = 0; i < 4; i++) {
    ports.logs.exposures.push(exposure(`more-${i}`, 2_000 + i));
    await work(ports, owner);
    now += 1_000;
    clock.advance(1_000);
    const before = values().snapshots_written!;
    owner.commitWhenDue();
    assert.equal(owner.join(now), false, 'stands still');
    while (values().snapshots_written === before) await new Promise(setImmediate);
    await owner.flush();
  }
  assert.equal(values().snapshots_written, 4);
  assert.equal(artifacts.files.size, 2);
});

test('above the memory limit a partition reads slowly, says so, and still gets on', async () => {
  const ports = new Ports();
  for (let i = 0; i < 250; i++) {
    const big = {
      ...exposure(`e${i}`, 1_000 + i),
      requestFeatures: { ints: [], floats: Array(20_000).fill(1) },
    };
    ports.logs.exposures.push(big);
  }
  const { owner, values } = newOwner(ports, { maxStateMb: 16 });
  await owner.open();
  now += 200;
  await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, 0)));
  owner.join(now - 100);
  const { open_exposures: first, slowed_p0: slowed } = values();
  assert.equal(slowed, 0);
  assert.equal(first, 250);
  // Closed and forgotten, they give their memory back, and reading is as fast as before.
  ports.logs.exposures.push(...Array.from({ length: 250 }, (_, i) => exposure(`late-${i}`, 100_000)));
  now += 200;
  await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, topic === 'exposures' ? 250 : 0)));
  owner.join(now - 100);
  assert.equal(values().slowed_p0, 1);
  assert.equal(values().partitions_slowed, 1);
  assert.equal(values().open_exposures, 350);
  owner.join(now);
  assert.equal(values().open_exposures, 350, 'not before its next turn');
  for (let turn = 0; turn < 50 && values().open_exposures !== 250; turn++) {
    now += 200;
    await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, ports.logs[topic].length)));
    owner.join(now - 100);
    owner.uncovered()?.();
    owner.join(now - 50);
    await owner.flush();
  }
  assert.equal(values().slowed_p0, 0);
  assert.equal(values().open_exposures, 250);
});
