import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KafkaIo, LogReader, Position, TransactionalWriter } from '@onemall/kafka-io';
import { ChangeLog } from '../src/adapters/change-log.ts';

test('skipping lost changes moves one partition and leaves the others where they are', async () => {
  const assigned: Position[] = [];
  const reader: Pick<LogReader, 'assign' | 'unassign' | 'close'> = {
    assign: async (positions) => void assigned.push(...positions),
    unassign: () => {},
    close: async () => {},
  };
  const writer: TransactionalWriter = { init: async () => {}, commit: async () => {}, close: async () => {} };
  const kafka = {
    options: { namespace: 'ns' },
    openReader: async () => reader,
    joinGroup: async () => ({ stop: async () => {} }),
    openTransactionalWriter: async () => writer,
    committed: async (_group: string, [at]: { partition: number }[]) => [
      { topic: 'live-product-changes', partition: at!.partition, offset: 40 + at!.partition },
    ],
  } as unknown as KafkaIo;
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
