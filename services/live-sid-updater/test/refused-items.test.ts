/** Which refused items a process reports, and which it no longer keeps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Item } from '@onemall/contracts';
import type { AnyOutRecord, KafkaIo, RecordWriter, TypedRecord } from '@onemall/kafka-io';
import { ManualClock, StageMeter } from '@onemall/service-kit';
import { vectorOf } from '@onemall/testkit';
import { followTables } from '../src/adapters/follow-tables.ts';
import { UpdaterState } from '../src/state/updater-state.ts';
import { item } from './items.ts';

/** Two partitions of items, of which the process owns the first. */
async function makeTables() {
  let onItem: (record: TypedRecord<'items'>) => void = () => assert.fail('items are not open');
  const kafka = {
    openTable: async (options: { topic: string; onRecord: typeof onItem }) => {
      if (options.topic === 'items') onItem = options.onRecord;
      return { readToEnd: async () => {}, positions: () => [], close: async () => {} };
    },
    encode: async (_topic: string, value: Item) => Buffer.from(JSON.stringify(value)),
    deadLetter: (raw: { key: Buffer; offset: number }) => ({
      topic: 'dead-letters',
      key: `${raw.key} ${raw.offset}`,
      value: null,
    }),
  } as unknown as KafkaIo;
  const state = new UpdaterState({
    scenarios: ['product_card'],
    textEmbeddingDim: 8,
    debounceMs: 0,
    maxDebounceMs: 0,
    flapHoldMs: 0,
    numPartitions: 2,
  });
  state.own(0);
  const clock = new ManualClock(0);
  const parts = {
    clock,
    meter: new StageMeter('test'),
    onError: (error: unknown) => assert.fail(`${error}`),
  };
  const tables = await followTables(kafka, state, parts);
  await tables.openItems();
  const sent: string[] = [];
  let whileSending = (): void => {};
  const writer: RecordWriter = {
    send: async (records: readonly AnyOutRecord[]) => {
      for (const record of records) sent.push(String(record.key));
      whileSending();
    },
    close: async () => {},
  };
  let offset = 0;
  const put = (itemId: string, partition: number, embedding: number[] | null): void =>
    onItem({
      topic: 'items',
      partition,
      offset: offset++,
      timestampMs: 0,
      key: itemId,
      value: embedding && item(itemId, { embedding }),
    });
  put('good', 0, vectorOf(1));
  const flush = async (during = (): void => {}): Promise<string[]> => {
    whileSending = during;
    await tables.flushRefused(writer);
    return sent.splice(0);
  };
  return { state, put, flush };
}

test('a refused item of an owned partition is reported once, its newest record only', async () => {
  const { put, flush } = await makeTables();
  put('a', 0, [1]);
  put('a', 0, [1, 2]);
  assert.deepEqual(await flush(), ['a 2']);
  assert.deepEqual(await flush(), []);
});

test('items of partitions of others are reported once the partition comes, unless they are right or gone by then', async () => {
  const { state, put, flush } = await makeTables();
  for (const itemId of ['stays', 'mended', 'removed']) put(itemId, 1, [1]);
  assert.deepEqual(await flush(), []);
  put('mended', 1, vectorOf(2));
  put('removed', 1, null);
  put('stays', 1, [1, 2]);
  state.own(1);
  assert.deepEqual(await flush(), ['stays 6']);
  assert.deepEqual(await flush(), []);
});

test('what is refused while its predecessor is sent is reported too', async () => {
  const { put, flush } = await makeTables();
  put('a', 0, [1]);
  let isFirst = true;
  const sent = await flush(() => {
    if (isFirst) put('a', 0, [1, 2]);
    isFirst = false;
  });
  assert.deepEqual([...sent, ...(await flush())], ['a 1', 'a 2']);
});
