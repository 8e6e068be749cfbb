/** The gate asks for the SIDs that the retriever can find: what is gone stays known for histories alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ItemSid, LiveSid, Sid } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { ManualClock, StageMeter } from '@onemall/service-kit';
import { SidTables } from '../src/adapters/sid-tables.ts';
import { itemSids, liveSids, NUM_CODES, SCENARIOS, sidOf } from './synthetic.ts';

type Put = (record: { key: string; value: ItemSid | LiveSid | null }) => void;

async function opened() {
  const put: Record<string, Put> = {};
  const io = {
    openTable: async ({ topic, onRecord }: { topic: string; onRecord: Put }) => {
      put[topic] = onRecord;
      return { readToEnd: async () => {}, positions: () => [], close: async () => {} };
    },
  };
  const each = <V>(of: V): Record<string, V> => Object.fromEntries(SCENARIOS.map((s) => [s, of]));
  const codebooks = { codebookVersions: each(2), numCodes: each(NUM_CODES) };
  const meter = new StageMeter('trainer');
  const tables = await SidTables.open(
    io as unknown as KafkaIo,
    new ManualClock(0),
    codebooks,
    meter,
    (error) => assert.fail(String(error)),
  );
  const existing = () => [...tables.retrievable()].map((sid) => (sid as Sid).c1).sort((a, b) => a - b);
  return { put, tables, existing, meter };
}

test('closed rooms, rooms that sell nothing and removed items exist no more, and are known as of earlier requests', async () => {
  const { put, tables, existing, meter } = await opened();
  const [item] = itemSids() as [ItemSid];
  const [room] = liveSids() as [LiveSid];
  const putItem = (i: number, version = 2) =>
    put['item-sids']!({
      key: `item-${i}:${version}`,
      value: { ...item, itemId: `item-${i}`, sid: sidOf('product_card', i, version) },
    });
  const putRoom = (i: number, over: Partial<LiveSid> = {}) =>
    put['live-sids']!({
      key: `room-${i}:2`,
      value: { ...room, liveId: `room-${i}`, sid: sidOf('live_stream', i, 2), ...over },
    });
  for (const i of [1, 2]) putItem(i);
  for (const i of [3, 4, 5, 6]) putRoom(i);
  putItem(7, 1);
  assert.deepEqual(existing(), [1, 2, 3, 4, 5, 6], 'those of the own codebook version');

  put['item-sids']!({ key: 'item-1:2', value: null });
  put['live-sids']!({ key: 'room-3:2', value: null });
  putRoom(4, { sellingItemIds: [], validFromMs: 50 });
  putRoom(5, { sid: null, validFromMs: 50 });
  assert.deepEqual(existing(), [2, 6]);
  for (const gone of ['item-1', 'room-3', 'room-4', 'room-5'])
    assert.ok(tables.sidOf(gone, 10), `${gone} as of an earlier request`);

  put['item-sids']!({ key: 'item-2:1', value: null });
  put['live-sids']!({ key: 'room-6:1', value: null });
  assert.deepEqual(existing(), [2, 6], 'tombstones of a retired version end nothing here');

  putRoom(3, { validFromMs: 60 });
  assert.deepEqual(existing(), [2, 3, 6], 'opened again');
  putRoom(6, { sid: { ...sidOf('live_stream', 6, 2), c1: NUM_CODES[0] } });
  assert.deepEqual(existing(), [2, 3], 'a code that the model does not have');
  assert.equal(meter.status('').values.sids_out_of_range, 1);
});
