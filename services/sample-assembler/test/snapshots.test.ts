/** Snapshots of a partition: taken in their time, used when they may be, passed over when anything is wrong with them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TransactionFailedError } from '@onemall/kafka-io';
import { artifactSha256 } from '@onemall/service-kit';
import { StartRefusedError } from '../src/adapters/start-checks.ts';
import {
  Artifacts,
  becomesLive,
  exposure,
  manyUsers,
  NO_CACHE_MB,
  newOwner,
  Ports,
  time,
  work,
} from './owner-scene.ts';

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

test('without a snapshot the whole log is read for histories, and where there are none only what the join needs', async () => {
  for (const [historyLength, replayed] of [
    [5, 3],
    [0, 1],
  ] as const) {
    const ports = new Ports();
    // The first two are forgotten by the time of the third.
    ports.logs.exposures.push(...[1_000, 2_000, 1_000_000].map((ms, i) => exposure(`e${i}`, ms)));
    const settings = { historyLength, snapshotMs: 0 };
    const { owner } = newOwner(ports, settings);
    await owner.open();
    await work(ports, owner);
    await owner.close();
    const heir = newOwner(ports, settings);
    await heir.owner.open();
    assert.equal(heir.values().replayed_records_p0, replayed);
    ports.logs.exposures.push(exposure('e2', 1_000_000));
    await work(ports, heir.owner);
    await heir.owner.flush();
    assert.equal(heir.values().duplicates, 1);
    assert.equal(heir.values().open_exposures, 1);
  }
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

test('a snapshot of a transaction that failed is not there for those who come to its offsets after it', async () => {
  const ports = new Ports();
  const artifacts = new Artifacts();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner, clock, values } = newOwner(ports, { artifacts, snapshotMs: 1_000 });
  await owner.open();
  await work(ports, owner);
  await owner.flush();
  ports.logs.exposures.push(exposure('e2', 60_000));
  await work(ports, owner);
  time.nowMs += 1_000;
  ports.failNext = new TransactionFailedError('no answer');
  owner.commitWhenDue();
  await owner.flush();
  await becomesLive(owner, clock);
  await work(ports, owner);
  await owner.flush();
  assert.deepEqual(
    ports.transactions.map((t) => t.topics),
    [[], ['training-samples']],
    'the second attempt has committed what the first had read',
  );
  assert.equal(values().snapshots_failed, 0);
  const heir = newOwner(ports, { artifacts });
  await heir.owner.open();
  assert.equal(heir.values().restored_from_snapshot_p0, 0);
  assert.equal(artifacts.files.size, 0);
});

test('a process that ends in mid-commit leaves no snapshot of it, and one that ends later leaves a whole one', async () => {
  const ports = new Ports();
  const artifacts = new Artifacts();
  ports.logs.exposures.push(exposure('e1', 1_000), exposure('e2', 60_000));
  const { owner, values } = newOwner(ports, { artifacts, snapshotMs: 1_000 });
  await owner.open();
  await work(ports, owner);
  time.nowMs += 1_000;
  const gate = Promise.withResolvers<void>();
  ports.mayCommit = gate.promise;
  owner.commitWhenDue();
  for (let i = 0; i < 50; i++) await new Promise(setImmediate);
  assert.equal(artifacts.files.size, 0);
  gate.resolve();
  while (values().snapshots_written === 0) await new Promise(setImmediate);
  assert.equal(artifacts.files.size, 1);
  const heir = newOwner(ports, { artifacts });
  await heir.owner.open();
  assert.equal(heir.values().restored_from_snapshot_p0, 1);
});

test('offsets that went back behind a snapshot are refused, or accepted without it: nobody who passes it later takes it for its own', async () => {
  const { ports, artifacts } = await finished();
  const committed = ports.offsets;
  ports.offsets = committed.map((o) => ({ ...o, offset: Math.min(o.offset, 1) }));
  const refused = newOwner(ports, { artifacts });
  await assert.rejects(refused.owner.open(), (error: Error) => {
    assert.ok(error instanceof StartRefusedError);
    assert.match(
      error.message,
      /partition 0 went back: they are exposures 1, .* has exposures 2, .*=missing-commits/s,
    );
    return true;
  });
  assert.ok(artifacts.files.size > 0);
  const { owner, values } = newOwner(ports, { artifacts, acceptLoss: ['missing-commits'] });
  await owner.open();
  assert.equal(values().restored_from_snapshot_p0, 0);
  // By another way than the snapshot knows.
  ports.offsets = committed;
  const beyond = newOwner(ports, { artifacts });
  await beyond.owner.open();
  assert.equal(beyond.values().restored_from_snapshot_p0, 0);
  assert.equal(artifacts.files.size, 0);
});

test('where nothing was ever committed snapshots are removed', async () => {
  const { ports, artifacts } = await finished();
  ports.offsets = [];
  const first = newOwner(ports, { artifacts });
  await first.owner.open();
  assert.equal(
    artifacts.files.size,
    0,
    'nothing was ever committed: what is there is of topics that are gone',
  );
});

test('snapshots are taken in their time, the newest two stay, and joining goes on while one is written', async () => {
  const ports = new Ports();
  const artifacts = new Artifacts();
  ports.logs.exposures.push(exposure('e1', 1_000));
  const { owner, clock, values } = newOwner(ports, { artifacts, snapshotMs: 1_000 });
  await owner.open();
  for (let i = 0; i < 4; i++) {
    ports.logs.exposures.push(exposure(`more-${i}`, 2_000 + i));
    await work(ports, owner);
    time.nowMs += 1_000;
    clock.advance(1_000);
    const before = values().snapshots_written!;
    const gate = Promise.withResolvers<void>();
    artifacts.mayWrite = gate.promise;
    owner.commitWhenDue();
    ports.logs.exposures.push(exposure(`meanwhile-${i}`, 2_000 + i));
    await work(ports, owner);
    assert.equal(values().snapshots_written, before);
    assert.equal(values().open_exposures, 3 + 2 * i);
    gate.resolve();
    while (values().snapshots_written === before) await new Promise(setImmediate);
    await owner.flush();
  }
  assert.equal(values().snapshots_written, 4);
  assert.equal(artifacts.files.size, 2);
});

for (const isUnderWay of [false, true])
  test(`a partition that is given up is committed before its snapshot is written${isUnderWay ? ', one under way is enough' : ''}`, async () => {
    const ports = new Ports();
    const artifacts = new Artifacts();
    ports.logs.exposures.push(exposure('e1', 1_000));
    const { owner, clock, values } = newOwner(ports, { artifacts, snapshotMs: 1_000 });
    await owner.open();
    await work(ports, owner);
    const gate = Promise.withResolvers<void>();
    artifacts.mayWrite = gate.promise;
    if (isUnderWay) {
      time.nowMs += 1_000;
      clock.advance(1_000);
      owner.commitWhenDue();
      await owner.flush();
    }
    ports.logs.exposures.push(exposure('last', 1_001));
    await owner.take([ports.fetch('exposures', 1)]);
    owner.join(time.nowMs);
    await owner.finish();
    assert.equal(ports.offsets.find((o) => o.topic === 'exposures')?.offset, 2);
    assert.equal(artifacts.files.size, 0);
    let isClosed = false;
    const closing = owner.close().then(() => {
      isClosed = true;
    });
    await new Promise(setImmediate);
    assert.equal(isClosed, false);
    gate.resolve();
    await closing;
    assert.equal(values().snapshots_written, 1);
    assert.equal(artifacts.files.size, 1);
  });

const segmentsOf = (artifacts: Artifacts): string[] =>
  [...artifacts.files.keys()].filter((uri) => uri.includes('/histories-0/'));

test('histories on disk are a part of snapshots, which share what has not changed and drop what none needs', async () => {
  const ports = new Ports();
  const artifacts = new Artifacts();
  const settings = { artifacts, historyCacheMb: NO_CACHE_MB };
  ports.logs.exposures.push(...manyUsers(0, 80));
  const first = newOwner(ports, settings);
  await first.owner.open();
  await work(ports, first.owner);
  await first.owner.close();
  const before = segmentsOf(artifacts);
  assert.ok(before.length > 2, `${before.length} segments`);

  const second = newOwner(ports, settings);
  await second.owner.open();
  assert.equal(second.values().restored_from_snapshot_p0, 1);
  ports.logs.exposures.push(exposure('one-more', 2_000, 'u3'));
  await work(ports, second.owner);
  assert.ok(second.values().history_disk_bytes! > 4_000);
  await second.owner.close();
  const shared = segmentsOf(artifacts).filter((uri) => before.includes(uri));
  assert.ok(shared.length > 0 && segmentsOf(artifacts).length > shared.length);

  // Every user comes again: no old segment stays alive, and two snapshots later none is kept.
  const third = newOwner(ports, settings);
  await third.owner.open();
  for (let i = 0; i < 3; i++) {
    ports.logs.exposures.push(...manyUsers(100 + 40 * i, 140 + 40 * i));
    await work(ports, third.owner);
    await third.owner.flush();
    if (i < 2) {
      time.nowMs += 400_000;
      third.clock.advance(400_000);
      third.owner.commitWhenDue();
      await third.owner.flush();
    }
  }
  await third.owner.close();
  assert.deepEqual(
    segmentsOf(artifacts).filter((uri) => before.includes(uri)),
    [],
  );
});

test('a snapshot with a lost or damaged segment of histories is passed over', async () => {
  for (const isLost of [true, false]) {
    const ports = new Ports();
    const artifacts = new Artifacts();
    ports.logs.exposures.push(...manyUsers(0, 80));
    const first = newOwner(ports, { artifacts, historyCacheMb: NO_CACHE_MB });
    await first.owner.open();
    await work(ports, first.owner);
    await first.owner.close();
    const [uri] = segmentsOf(artifacts);
    if (isLost) artifacts.files.set(uri!, new Map());
    else artifacts.files.get(uri!)!.get('segment')![40]! ^= 1;
    const { owner, values } = newOwner(ports, { artifacts, historyCacheMb: NO_CACHE_MB });
    await owner.open();
    assert.equal(values().restored_from_snapshot_p0, 0);
    assert.equal(values().snapshots_refused, 1);
    await work(ports, owner);
    assert.equal(values().history_events, 80, 'the log alone gives them');
    await owner.close();
  }
});

test('where the disk takes nothing histories stay in memory, and operators are told', async () => {
  const ports = new Ports();
  ports.logs.exposures.push(...manyUsers(0, 80));
  const { owner, values } = newOwner(ports, {
    historyCacheMb: NO_CACHE_MB,
    folder: import.meta.filename,
    snapshotMs: 0,
  });
  await owner.open();
  await work(ports, owner);
  assert.equal(values().history_disk_full_p0, 1);
  assert.equal(values().partitions_history_disk_full, 1);
  assert.equal(values().history_events, 80);
  assert.equal(values().history_disk_bytes, 0);
  await owner.close();
  assert.equal(ports.transactions.length > 0, true);
});
