/** What recovery stands on is gone or damaged: snapshots, committed offsets, retained records. */
import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Position } from '@onemall/kafka-io';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import { makeTraffic } from '../../services/sample-assembler/test/traffic.ts';
import { type Instance, Lab, LOGS, NUM_PARTITIONS } from './lab.ts';
import { damage, segmentFolders, snapshotFolders, snapshotsOf } from './snapshot-folders.ts';
import { underFault } from './under-fault.ts';

let stack: TestStack;
let admin: Admin;
before(async () => {
  stack = await startTestStack();
  admin = new Kafka({ brokers: stack.brokers.split(','), logLevel: logLevel.ERROR }).admin();
  await admin.connect();
});
after(async () => {
  await admin.disconnect();
  await stack.stop();
});

const PARTITIONS = Array.from({ length: NUM_PARTITIONS }, (_, partition) => partition);
async function hasSnapshots(lab: Lab, count: number): Promise<void> {
  await waitFor(
    async () => {
      const folders = await Promise.all(PARTITIONS.map((p) => snapshotFolders(lab, p)));
      return folders.every((mine) => mine.length >= count);
    },
    { what: `${count} snapshots of each partition`, timeoutMs: 60_000 },
  );
}

/** Whether each partition was taken over with a snapshot. */
async function restoredWith(instance: Instance): Promise<boolean[]> {
  const { values } = await instance.status();
  return PARTITIONS.map((p) => values[`restored_from_snapshot_p${p}`] === 1);
}

async function commitOffsets(lab: Lab, positions: readonly Position[]): Promise<void> {
  const writer = await lab.scene.io.openTransactionalWriter(`${lab.groupId}-restore`);
  await writer.init();
  await writer.commit({ records: [], offsets: { groupId: lab.groupId, positions } });
  await writer.close();
}

/** As when they expire. The group must have lost its last member. */
async function deleteOffsets(lab: Lab): Promise<void> {
  await waitFor(
    () =>
      admin.deleteGroups([lab.groupId]).then(
        () => true,
        () => false,
      ),
    { what: 'the group to be empty and deleted', timeoutMs: 60_000 },
  );
}

describe('recovery', { concurrency: 2 }, () => {
  test('the disk with the snapshots is lost: everything is rebuilt from the log', () =>
    underFault(stack, { seed: 41 }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      await lab.someOut();
      await lab.send(during);
      await hasSnapshots(lab, 1);
      await first.kill();
      await rm(snapshotsOf(lab), { recursive: true });
      const heir = await lab.startAlone();
      assert.deepEqual(await restoredWith(heir), [false, false, false, false]);
      const { values } = await heir.status();
      for (const p of PARTITIONS) assert.ok(values[`replayed_records_p${p}`]! > 0);
    }));

  test('damaged snapshots are refused: an older one or the log takes their place', () =>
    underFault(stack, { seed: 42, env: { ONEMALL_SNAPSHOT_MS: '500' } }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      await lab.someOut();
      await lab.send(during);
      await hasSnapshots(lab, 2);
      assert.equal(await first.stop(), 0);
      const [all, newest, incomplete, whole] = await Promise.all(
        PARTITIONS.map((p) => snapshotFolders(lab, p)),
      );
      for (const folder of all!) await damage(folder);
      await damage(newest!.at(-1)!);
      for (const folder of incomplete!) await rm(path.join(folder, (await readdir(folder))[0]!));
      assert.ok(newest!.length > 1 && whole!.length > 0);
      const heir = await lab.startAlone();
      assert.deepEqual(await restoredWith(heir), [false, true, false, true]);
      const { values } = await heir.status();
      assert.equal(values.snapshots_refused, all!.length + 1 + incomplete!.length);
      assert.match(heir.logTail(200), /is corrupt/);
    }));

  test('damaged histories: snapshots that need a segment which is lost or damaged are refused', () =>
    underFault(
      stack,
      {
        seed: 45,
        env: { ONEMALL_SNAPSHOT_MS: '500', ONEMALL_HISTORY_CACHE_MB: '0.001' },
        traffic: { numUsers: 100 },
      },
      async ({ lab, during }) => {
        const first = await lab.startAlone();
        await lab.someOut();
        await lab.send(during);
        await hasSnapshots(lab, 2);
        assert.equal(await first.stop(), 0);
        const [ofDamaged, ofLost] = await Promise.all([0, 1].map((p) => snapshotFolders(lab, p)));
        const [damaged, lost] = await Promise.all([0, 1].map((p) => segmentFolders(lab, p)));
        assert.ok(damaged!.length > 0 && lost!.length > 0);
        for (const folder of damaged!) await damage(folder);
        for (const folder of lost!) await rm(folder, { recursive: true });
        const heir = await lab.startAlone();
        assert.deepEqual(await restoredWith(heir), [false, false, true, true]);
        const { values } = await heir.status();
        assert.equal(values.snapshots_refused, ofDamaged!.length + ofLost!.length);
        assert.ok(values.history_disk_bytes! > 0);
      },
    ));

  test('the committed offsets expired: the start is refused and nothing written until they are restored', () =>
    underFault(stack, { seed: 43 }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      await lab.someOut();
      await lab.send(during);
      assert.equal(await first.stop(), 0);
      const committed = await lab.committed();
      assert.ok(committed.every(({ offset }) => offset >= 0));
      const numSamples = await lab.numSamples();
      await deleteOffsets(lab);
      const refused = await lab.start();
      assert.equal((await refused.exited).code, 1);
      assert.match(refused.logTail(), /no committed offsets for partition/);
      assert.match(refused.logTail(), /ONEMALL_ACCEPT_LOSS=missing-commits/);
      assert.equal(await lab.numSamples(), numSamples);
      await commitOffsets(lab, committed);
      // The refused start has left the snapshots alone.
      assert.deepEqual(await restoredWith(await lab.startAlone()), [true, true, true, true]);
    }));

  test('the committed offsets went back: the start is refused and nothing written until they are restored', () =>
    underFault(stack, { seed: 47, env: { ONEMALL_SNAPSHOT_MS: '500' } }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      await lab.someOut();
      assert.equal(await first.stop(), 0);
      const before = await lab.committed();
      const second = await lab.startAlone();
      await lab.send(during);
      await waitFor(async () => ((await second.status()).values.snapshots_written ?? 0) > 0, {
        what: 'a snapshot of what came since',
        timeoutMs: 60_000,
      });
      assert.equal(await second.stop(), 0);
      const committed = await lab.committed();
      const numSamples = await lab.numSamples();
      await commitOffsets(lab, before);
      const refused = await lab.start();
      assert.equal((await refused.exited).code, 1);
      assert.match(refused.logTail(), /The committed offsets of partition \d went back/);
      assert.equal(await lab.numSamples(), numSamples);
      await commitOffsets(lab, committed);
      await lab.startAlone();
    }));

  test('the partition count changed under open exposures: the start is refused, or goes on with the flag', async () => {
    const lab = await Lab.create(stack, { ONEMALL_MAX_DELAY_MS: '600000' });
    try {
      const startMs = Date.now() - 50_000;
      const arrivals = makeTraffic({ seed: 46, numRequests: 400, startMs, numUsers: 100 });
      const half = arrivals.length >> 1;
      await lab.scene.sendCatalogue(startMs);
      const first = await lab.startAlone();
      await lab.send(arrivals.slice(0, half));
      await lab.someOut();
      assert.equal(await first.stop(), 0);
      const numSamples = await lab.numSamples();
      await admin.createPartitions({
        topicPartitions: LOGS.map((topic) => ({ topic: lab.physical(topic), count: NUM_PARTITIONS + 2 })),
      });
      const refused = await lab.start();
      assert.equal((await refused.exited).code, 1);
      assert.match(
        refused.logTail(),
        /exposures has 6 partitions, but the commit of its partition \d was made when there were 4/,
      );
      assert.match(refused.logTail(), /ONEMALL_ACCEPT_LOSS=changed-partitions/);
      assert.equal(await lab.numSamples(), numSamples);
      // The two that are new are owned as well, although training-samples has samples of users who are theirs by now.
      const accepted = await lab.start({ ONEMALL_ACCEPT_LOSS: 'changed-partitions' });
      await lab.owns(accepted, NUM_PARTITIONS + 2);
      await lab.send(arrivals.slice(half));
      await lab.someOut(numSamples + 1);
      assert.equal(await accepted.stop(), 0);
      await lab.owns(await lab.start(), NUM_PARTITIONS + 2);
    } finally {
      await lab.close();
    }
  });

  const gone = (what: string, env: Record<string, string>) =>
    test(`records that open exposures need were deleted, ${what}: refused without a snapshot, or the loss is accepted`, () =>
      refusedOrAccepted(env));
  gone('histories asked for', {});
  gone('labels only', { ONEMALL_HISTORY_LENGTH: '0' });

  async function refusedOrAccepted(env: Record<string, string>): Promise<void> {
    const lab = await Lab.create(stack, {
      ONEMALL_SNAPSHOT_MS: '0',
      ONEMALL_MAX_DELAY_MS: '600000',
      ...env,
    });
    try {
      const startMs = Date.now() - 50_000;
      await lab.scene.sendCatalogue(startMs);
      const first = await lab.startAlone();
      await lab.send(makeTraffic({ seed: 44, numRequests: 200, startMs }));
      await lab.someOut();
      assert.equal(await first.stop(), 0);
      const { offset, metadata } = (await lab.committed()).find(
        (c) => c.topic === 'clicks' && c.partition === 0,
      )!;
      assert.ok(Number(metadata!.split(',')[1]) < offset, `${metadata} at ${offset}`);
      // kafkajs deletes only from topics that it has looked up before.
      await admin.fetchTopicOffsets(lab.physical('clicks'));
      await admin.deleteTopicRecords({
        topic: lab.physical('clicks'),
        partitions: [{ partition: 0, offset: String(offset) }],
      });
      const refused = await lab.start();
      assert.equal((await refused.exited).code, 1);
      assert.match(refused.logTail(), /clicks partition 0 no longer holds offset \d+/);
      assert.match(refused.logTail(), /ONEMALL_ACCEPT_LOSS=missing-offsets/);
      const accepted = await lab.startAlone({ ONEMALL_ACCEPT_LOSS: 'missing-offsets' });
      await lab.settle();
      assert.equal((await accepted.status()).values.partitions_owned, NUM_PARTITIONS);
    } finally {
      await lab.close();
    }
  }
});
