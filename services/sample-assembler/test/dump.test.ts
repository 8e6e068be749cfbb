/** The oracle reads to the end of a log, or says what keeps it from there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { FetchedPartition, KafkaIo, LogReader } from '@onemall/kafka-io';
import { readTopic } from '../oracle/dump.ts';

/** Two partitions, the first of ten records, of which so many can be read, as each answer says; the second is empty. */
function logWith(readable: number): Pick<KafkaIo, 'endOffsets' | 'openReader' | 'decode'> {
  const answer: Partial<FetchedPartition> = {
    partition: 0,
    records: [],
    ends: [],
    nextOffset: readable,
    cursor: () => ({}) as never,
  };
  const reader: Partial<LogReader> = {
    assign: async () => {},
    poll: async () => {
      await setImmediate();
      return [answer as FetchedPartition];
    },
    close: async () => {},
  };
  return {
    endOffsets: async (topic) => [
      { topic, partition: 0, offset: 10 },
      { topic, partition: 1, offset: 0 },
    ],
    openReader: async () => reader as LogReader,
    decode: async () => assert.fail('there is nothing to decode'),
  };
}

test('a log ends where its end was when reading began, markers of transactions included', async () => {
  for await (const _ of readTopic(logWith(10), 'clicks')) assert.fail('no record was expected');
});

test('a log that a transaction holds up is an error that says where', async () => {
  const reading = readTopic(logWith(4), 'training-samples', { stallMs: 20 });
  await assert.rejects(reading.next(), {
    message:
      'Nothing more of training-samples could be read for 0.02 s: partition 0 at offset 4 of 10. A transaction there stays open: kafka-transactions.sh find-hanging names it',
  });
});
