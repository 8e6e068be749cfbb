/** How a partition is taken over and what a transaction holds: the order of calls, with ports that write them down. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FencedError, KafkaIoError, partitionOf, TransactionFailedError } from '@onemall/kafka-io';
import { StateMemory } from '../src/adapters/state-memory.ts';
import { LOG_TOPICS } from '../src/stages/log-record.ts';
import { RULES } from './drive.ts';
import { becomesLive, exposure, manyUsers, NO_CACHE_MB, newOwner, Ports, time, work } from './owner-scene.ts';

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
  time.nowMs += 200;
  const waiting = LOG_TOPICS.map((topic) => ports.fetch(topic, ports.logs[topic].length));
  time.nowMs += 200;
  ports.failNext = new TransactionFailedError('no answer');
  await owner.flush();
  await becomesLive(owner, clock);
  await owner.take(waiting);
  owner.join(time.nowMs);
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

test('invariant 3: tables that were read to their end while the commit failed let nothing of the dropped state leave', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(...manyUsers(0, 80), exposure('moves on', 60_000));
  const { owner, clock, failures } = newOwner(ports, { historyCacheMb: NO_CACHE_MB, snapshotMs: 0 });
  await owner.open();
  time.nowMs += 200;
  await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, 0)));
  owner.join(time.nowMs - 100);
  // Samples of users whose histories lie on disk are due once the tables are read.
  const cover = owner.uncovered()!;
  ports.failNext = new TransactionFailedError('no answer');
  await owner.flush();
  assert.equal(owner.isLive, false);
  cover();
  await becomesLive(owner, clock);
  await work(ports, owner);
  await owner.flush();
  assert.deepEqual(
    ports.transactions.map((t) => t.topics.length),
    [80],
    'all of it leaves once, from the state that was rebuilt',
  );
  assert.deepEqual(failures, []);
  await owner.close();
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

test('a part that waits for the registry while its partition is given up is left to the next owner', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 2_000));
  const { owner } = newOwner(ports, { maxBufferedRecords: 1 });
  await owner.open();
  let back = (): void => {};
  ports.registryIsAway = new Promise((resolve) => {
    back = resolve;
  });
  const taking = owner.take([ports.fetch('exposures', 0)]);
  await owner.close();
  back();
  await taking;
  assert.equal(owner.isLive, false);
  assert.equal(ports.transactions.flatMap(({ topics }) => topics).length, 0);
});

test('a partition that cannot be taken over is seen, at the start and after a failed commit', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { committed } = ports.io;
  ports.io.committed = async () => {
    throw new KafkaIoError('UNSTABLE_OFFSET_COMMIT');
  };
  const { owner, clock, values } = newOwner(ports);
  const opened = owner.open();
  const seen = () => {
    const { partitions_owned, partitions_taking_over, taking_over_p0, watermark_ms_p0 } = values();
    return { partitions_owned, partitions_taking_over, taking_over_p0, watermark_ms_p0 };
  };
  const waiting = {
    partitions_owned: 0,
    partitions_taking_over: 1,
    taking_over_p0: 1,
    watermark_ms_p0: undefined,
  };
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  assert.deepEqual(seen(), waiting);
  ports.io.committed = committed;
  await becomesLive(owner, clock);
  await opened;
  await work(ports, owner);
  const owned = { partitions_owned: 1, partitions_taking_over: 0, taking_over_p0: 0, watermark_ms_p0: 500 };
  assert.deepEqual(seen(), owned);
  ports.failNext = new TransactionFailedError('no answer');
  await owner.flush();
  assert.deepEqual(seen(), waiting, 'what was known of the dropped state is not told any more');
  assert.equal(values().transactions_aborted_p0, 1);
  await becomesLive(owner, clock);
  await work(ports, owner);
  assert.deepEqual(seen(), owned);
  assert.equal(values().transactions_aborted_p0, 1, 'goes on counting');
  await owner.close();
  assert.equal(values().partitions_taking_over, 0);
  assert.deepEqual(
    Object.keys(values()).filter((name) => name.endsWith('_p0')),
    [],
  );
});

test('samples without committed offsets refuse the start', async () => {
  const ports = new Ports();
  ports.samplesEnd = 7;
  ports.samples = [exposure('e1', 1_000)];
  const { owner } = newOwner(ports);
  await assert.rejects(
    owner.open(),
    /no committed offsets for partition 0 .* ONEMALL_ACCEPT_LOSS=missing-commits/s,
  );
});

test('where the counts differ, samples of its users refuse the start of a partition that alone has lost its commits', async () => {
  const facts = { numPartitions: 2, samplesAlign: false, numPartitionsBefore: 2 };
  const userOf = (partition: number): string =>
    ['u1', 'u2', 'u3', 'u4', 'u5', 'u6'].find((id) => partitionOf(Buffer.from(id), 2) === partition)!;
  for (const [partitions, isRefused] of [
    [[1, 0], true],
    [[1], false],
  ] as const) {
    const ports = new Ports();
    ports.samples = partitions.map((partition) => exposure('e1', 1_000, userOf(partition)));
    ports.samplesEnd = 7;
    ports.offsets = LOG_TOPICS.map((topic) => ({ topic, partition: 1, offset: 5, metadata: '1000,0,2' }));
    const { owner } = newOwner(ports, { facts });
    if (isRefused) await assert.rejects(owner.open(), /no committed offsets for partition 0/);
    else await owner.open();
    assert.equal(owner.isLive, !isRefused);
  }
});

test('an end of the samples that only aborted transactions moved does not refuse the start', async () => {
  const ports = new Ports();
  ports.samplesEnd = 7;
  const { owner } = newOwner(ports);
  await owner.open();
  assert.equal(owner.isLive, true);
});

const never = new Promise<void>(() => {});
const COMMITTED = LOG_TOPICS.map((topic) => ({ topic, partition: 0, offset: 0, metadata: '1000,0,1' }));
const HANGS: Record<string, (ports: Ports) => void> = {
  'the coordinator does not fence': (ports) => {
    ports.mayFence = never;
  },
  'the coordinator does not tell the offsets': (ports) => {
    ports.mayReadOffsets = never;
  },
  'no leader tells whether offsets are retained': (ports) => {
    ports.offsets = COMMITTED;
    ports.leadersAreAway = true;
  },
  'no leader tells whether there are samples': (ports) => {
    ports.samplesEnd = 7;
    ports.leadersAreAway = true;
  },
  'no leader tells where its log begins': (ports) => {
    ports.mayAssign = never;
  },
};
for (const [what, hang] of Object.entries(HANGS))
  test(`a partition is given up while it is taken over and ${what}`, { timeout: 20_000 }, async () => {
    const ports = new Ports();
    hang(ports);
    const { owner } = newOwner(ports);
    const opening = owner.open();
    for (let i = 0; i < 50; i++) await new Promise(setImmediate);
    await owner.close();
    await opening;
    assert.equal(owner.isLive, false);
    assert.ok(ports.calls.includes('close writer'), String(ports.calls));
  });

test('a partition that is given up before it was fenced fences nobody', async () => {
  const ports = new Ports();
  const opened = Promise.withResolvers<void>();
  ports.mayOpen = opened.promise;
  const { owner } = newOwner(ports);
  const opening = owner.open();
  const closing = owner.close();
  await new Promise(setImmediate);
  opened.resolve();
  await Promise.all([opening, closing]);
  assert.deepEqual(ports.calls, ['open test.sample-assembler-0', 'close writer']);
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
  const { owner, values } = newOwner(ports, { stateMemory: new StateMemory(16 << 20) });
  await owner.open();
  time.nowMs += 200;
  await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, 0)));
  owner.join(time.nowMs - 100);
  const { open_exposures: first, slowed_p0: slowed } = values();
  assert.equal(slowed, 0);
  assert.equal(first, 250);
  // Closed and forgotten, they give their memory back, and reading is as fast as before.
  ports.logs.exposures.push(...Array.from({ length: 250 }, (_, i) => exposure(`late-${i}`, 100_000)));
  time.nowMs += 200;
  await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, topic === 'exposures' ? 250 : 0)));
  owner.join(time.nowMs - 100);
  assert.equal(values().slowed_p0, 1);
  assert.equal(values().partitions_slowed, 1);
  assert.equal(values().open_exposures, 350);
  owner.join(time.nowMs);
  assert.equal(values().open_exposures, 350, 'not before its next turn');
  for (let turn = 0; turn < 50 && values().open_exposures !== 250; turn++) {
    time.nowMs += 200;
    await owner.take(LOG_TOPICS.map((topic) => ports.fetch(topic, ports.logs[topic].length)));
    owner.join(time.nowMs - 100);
    owner.uncovered()?.();
    owner.join(time.nowMs - 50);
    await owner.flush();
  }
  assert.equal(values().slowed_p0, 0);
  assert.equal(values().open_exposures, 250);
});

test('the memory limit is for all partitions of an instance; what one lets go others may have', async () => {
  const ports = new Ports();
  const stateMemory = new StateMemory(16 << 20);
  const { owner, values } = newOwner(ports, { stateMemory });
  await owner.open();
  stateMemory.holds(1, 17 << 20);
  ports.logs.exposures.push(exposure('e1', 1_000));
  await work(ports, owner);
  assert.equal(values().slowed_p0, 1);
  stateMemory.letsGo(1);
  await work(ports, owner);
  assert.equal(values().slowed_p0, 0);
  stateMemory.holds(1, 16 << 20);
  assert.equal(stateMemory.isAboveLimit, true, 'with what partition 0 holds');
  await owner.close();
  assert.equal(stateMemory.isAboveLimit, false);
});
