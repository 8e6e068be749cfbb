import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LiveSid } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo, LogReader, Position, TransactionalWriter } from '@onemall/kafka-io';
import { ChangeLog } from '../src/adapters/change-log.ts';

/** A log of which each partition was committed at 40 + its number, and what is assigned, read and committed. */
function withoutBroker() {
  const assigned: Position[] = [];
  const commits: Parameters<TransactionalWriter['commit']>[0][] = [];
  let nextOffset = 0;
  const reader: Pick<LogReader, 'assign' | 'unassign' | 'poll' | 'close'> = {
    assign: async (positions) => void assigned.push(...positions),
    unassign: () => {},
    poll: async () => [{ partition: 0, nextOffset } as FetchedPartition],
    close: async () => {},
  };
  const writer: TransactionalWriter = {
    init: async () => {},
    commit: async (transaction) => void commits.push(transaction),
    close: async () => {},
  };
  const kafka = {
    options: { namespace: 'ns' },
    openReader: async () => reader,
    joinGroup: async () => ({ stop: async () => {} }),
    openTransactionalWriter: async () => writer,
    committed: async (_group: string, [at]: { partition: number }[]) => [
      { topic: 'live-product-changes', partition: at!.partition, offset: 40 + at!.partition },
    ],
  } as unknown as KafkaIo;
  const readTo = (offset: number): void => {
    nextOffset = offset;
  };
  return { kafka, assigned, commits, readTo };
}

test('the offset goes along once a second, with every tombstone, and alone', async () => {
  const { kafka, commits, readTo } = withoutBroker();
  const changes = await ChangeLog.join(kafka, (error) => assert.fail(String(error)));
  await changes.take(0);
  const record = (value: LiveSid | null) => ({ topic: 'live-sids', key: 'room:1', value }) as const;
  const commit = async (value: LiveSid | null | undefined, offset: number, nowMs: number): Promise<void> => {
    readTo(offset);
    await changes.poll(0, new AbortController().signal);
    await changes.commit(0, value === undefined ? [] : [record(value)], null, nowMs);
  };
  const some = { liveId: 'room' } as LiveSid;
  await commit(some, 50, 10_000);
  await commit(some, 60, 10_400);
  await commit(some, 61, 10_999);
  await commit(some, 70, 11_000);
  await commit(null, 71, 11_001);
  await commit(some, 72, 11_500);
  await commit(undefined, 72, 11_501);
  await commit(undefined, 72, 20_000);
  assert.deepEqual(
    commits.map(({ records, offsets }) => [records.length, offsets?.positions[0]?.offset ?? null]),
    [
      [1, 50],
      [1, null],
      [1, null],
      [1, 70],
      [1, 71],
      [1, null],
      [0, 72],
    ],
  );
  await changes.close();
});

test('skipping lost changes moves one partition and leaves the others where they are', async () => {
  const { kafka, assigned } = withoutBroker();
  const changes = await ChangeLog.join(kafka, (error) => assert.fail(String(error)));
  await changes.take(0);
  await changes.take(1);
  await changes.skipToOldest(1);
  assert.deepEqual(
    assigned.map(({ partition, offset }) => [partition, offset]),
    [
      [0, 40],
      [1, 41],
      [1, -2],
    ],
  );
  await changes.close();
});
