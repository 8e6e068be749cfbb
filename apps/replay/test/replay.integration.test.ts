import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { TOPICS } from '@onemall/contracts';
import { connectKafka, type KafkaIo, type TypedRecord } from '@onemall/kafka-io';
import { type SpawnedService, spawnService, startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import avsc from 'avsc';
import { temporaryFolder, writeCsv } from './fixtures.ts';
import { createTopic, produce, registerSchema } from './foreign-topic.ts';

const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 60_000 };
type Input = 'items' | 'exposures' | 'clicks' | 'buys' | 'dead-letters';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(async () => {
  await stack.stop();
});

interface Place {
  io: KafkaIo;
  folder: string;
  start(env: Record<string, string>): Promise<SpawnedService>;
}
async function newPlace(t: TestContext): Promise<Place> {
  const namespace = stack.newNamespace();
  const io = await connectKafka({
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    namespace,
    clientId: 'test',
  });
  t.after(() => io.close());
  const names = TOPICS.map((spec) => spec.name);
  await io.createTopics(names, { retention: RETENTION, numPartitions: 2 });
  await io.registerSchemas(names);
  const folder = await temporaryFolder(t);
  return {
    io,
    folder,
    start: async (env) => {
      const replay = await spawnService('apps/replay/src/main.ts', {
        ONEMALL_KAFKA_BROKERS: stack.brokers,
        ONEMALL_REGISTRY_URL: stack.registryUrl,
        ONEMALL_NAMESPACE: namespace,
        ONEMALL_DATA_DIR: path.join(folder, 'data'),
        ONEMALL_GRACE_MS: String(RETENTION.graceMs),
        ONEMALL_LONGEST_OUTAGE_MS: String(RETENTION.longestOutageMs),
        ONEMALL_SCENARIOS: JSON.stringify({ product_card: { clickWindowMs: 4_000, buyWindowMs: 8_000 } }),
        ...env,
      });
      // a failed test leaves none behind
      t.after(() => replay.kill());
      await replay.ready();
      return replay;
    },
  };
}

/** Committed records of the topic now. */
async function readAll<T extends Input>(io: KafkaIo, topic: T): Promise<TypedRecord<T>[]> {
  const records: TypedRecord<T>[] = [];
  const table = await io.openTable({
    topic,
    onRecord: (record) => void records.push(record),
    onError: (error) => {
      throw error;
    },
  });
  await table.readToEnd();
  await table.close();
  return records;
}
const value = async (replay: SpawnedService, name: string): Promise<number> =>
  (await replay.status()).values[name] ?? 0;
const done = (replay: SpawnedService): Promise<unknown> =>
  waitFor(async () => (await value(replay, 'done')) === 1, { what: 'the end of the log', timeoutMs: 60_000 });

const tmallLines = (count: number): string[] => [
  'user_id,brand_id,type,visit_datetime',
  ...Array.from({ length: count }, (_, i) => `u${i % 11},b${i % 17},${i % 8 === 7 ? 1 : 0},6-${1 + (i % 9)}`),
];

test('a file: items before events, synthetic exposures counted, bad rows too, times moved to now', async (t) => {
  const place = await newPlace(t);
  const log = await writeCsv(place.folder, 'log.csv', [...tmallLines(400), 'u1,b1,9,6-1', 'u1,,0,6-1']);
  const beforeMs = Date.now();
  const replay = await place.start({
    ONEMALL_REPLAY_SOURCE: log,
    ONEMALL_REPLAY_MAPPING: 'tmall',
    ONEMALL_REPLAY_RATE: '2000',
  });
  await done(replay);
  const { values } = await replay.status();
  assert.equal(await replay.stop(), 0);
  const exposures = await readAll(place.io, 'exposures');
  const clicks = await readAll(place.io, 'clicks');
  const buys = await readAll(place.io, 'buys');
  assert.deepEqual([clicks.length, buys.length, values.bad_rows], [350, 50, 2]);
  assert.equal(values.synthetic_exposures, exposures.length);
  assert.equal(values.synthetic_negatives, exposures.length - 400);
  assert.equal((await readAll(place.io, 'items')).length, 17);
  const shown = new Map(exposures.map((r) => [r.value!.exposureId, r.value!]));
  for (const record of [...clicks, ...buys]) {
    const action = record.value!;
    assert.equal(record.key, action.userId);
    const exposure = shown.get(action.exposureId!)!;
    const delayMs = action.eventTimeMs - exposure.eventTimeMs;
    assert.ok(delayMs >= 0 && delayMs < 4_000, `${delayMs} ms`);
    assert.ok(exposure.eventTimeMs >= beforeMs);
    assert.ok(action.eventTimeMs <= record.timestampMs + 1_000, 'not ahead of the broker');
  }
});

test('a stopped replay goes on where it was, with no event twice and none lost', async (t) => {
  const place = await newPlace(t);
  const log = await writeCsv(place.folder, 'log.csv', tmallLines(2_000));
  const env = { ONEMALL_REPLAY_SOURCE: log, ONEMALL_REPLAY_MAPPING: 'tmall', ONEMALL_REPLAY_TIMES: 'keep' };
  const first = await place.start({ ...env, ONEMALL_REPLAY_RATE: '500' });
  await waitFor(async () => (await value(first, 'events_clicks')) > 50, {
    what: 'clicks',
    timeoutMs: 30_000,
  });
  assert.equal(await first.stop(), 0);
  const second = await place.start({ ...env, ONEMALL_REPLAY_RATE: '100000' });
  await done(second);
  assert.equal(await second.stop(), 0);
  const actions = [...(await readAll(place.io, 'clicks')), ...(await readAll(place.io, 'buys'))];
  assert.equal(actions.length, 2_000);
  assert.equal(new Set(actions.map((r) => r.value!.actionId)).size, 2_000);
  const day = Date.UTC(2014, 5, 1);
  assert.ok(actions.every((r) => r.value!.eventTimeMs >= day && r.value!.eventTimeMs < day + 9 * 86_400_000));
});

const foreign = {
  name: 'theirs',
  user: 'customer.id',
  item: 'sku',
  time: { column: 'at', unit: 'ms' },
  kind: { column: 'event', values: { seen: 'exposure', click: 'click', order: 'buy' } },
  price: { column: 'price', unit: 'minor' },
  exposureId: 'impression',
  items: { title: '{name}' },
};
const foreignRecord = (i: number) => ({
  customer: { id: `kunde-${i % 7}-ä` },
  sku: `sku-${i % 13}`,
  name: `lamp ${i % 13}`,
  at: 1_700_000_000_000 + i * 10,
  event: i % 3 === 0 ? 'seen' : i % 3 === 1 ? 'click' : 'order',
  price: 100 + (i % 13),
  impression: `imp-${Math.floor(i / 3)}`,
});

test('own topic, JSON: exactly once through kills, re-keyed, poison in dead-letters', async (t) => {
  const place = await newPlace(t);
  const topic = `theirs-${stack.newNamespace()}`;
  await createTopic(stack.brokers, topic, 3);
  const mapping = path.join(place.folder, 'theirs.json');
  await writeCsv(place.folder, 'theirs.json', [JSON.stringify(foreign)]);
  const json = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, k) => ({
      key: String(k),
      value: Buffer.from(JSON.stringify(foreignRecord(from + k))),
    }));
  const env = {
    ONEMALL_REPLAY_SOURCE: `kafka:${topic}`,
    ONEMALL_REPLAY_MAPPING: mapping,
    ONEMALL_REPLAY_FOLLOW: 'true',
  };
  await produce(stack.brokers, topic, json(0, 6_000));
  for (let kill = 0; kill < 3; kill++) {
    const replay = await place.start(env);
    await waitFor(async () => (await replay.status()).out > 0, { what: 'output', timeoutMs: 30_000 });
    await replay.kill();
    await produce(stack.brokers, topic, json(6_000 + kill * 1_000, 7_000 + kill * 1_000));
  }
  await produce(stack.brokers, topic, [
    { key: 'x', value: Buffer.from('no json') },
    { key: 'x', value: Buffer.from(JSON.stringify({ ...foreignRecord(1), price: -5 })) },
    { key: 'x', value: Buffer.from([0, 0, 1, 2, 3, 4, 5]) },
  ]);
  const last = await place.start(env);
  const read = async (): Promise<number> =>
    await Promise.all(
      (['exposures', 'clicks', 'buys', 'dead-letters'] as const).map((x) => readAll(place.io, x)),
    ).then((all) => all.reduce((sum, r) => sum + r.length, 0));
  await waitFor(async () => (await read()) >= 9_003, { what: 'all records', timeoutMs: 60_000 });
  assert.equal(await last.stop(), 0);

  const [exposures, clicks, buys, dead] = await Promise.all([
    readAll(place.io, 'exposures'),
    readAll(place.io, 'clicks'),
    readAll(place.io, 'buys'),
    readAll(place.io, 'dead-letters'),
  ]);
  assert.deepEqual([exposures.length, clicks.length, buys.length, dead.length], [3_000, 3_000, 3_000, 3]);
  const times = (records: { value: { eventTimeMs: number } | null }[]) =>
    records.map((r) => r.value!.eventTimeMs).sort((a, b) => a - b);
  const expected = (k: number) => Array.from({ length: 3_000 }, (_, i) => foreignRecord(3 * i + k).at);
  assert.deepEqual(times(exposures), expected(0));
  assert.deepEqual(times(clicks), expected(1));
  assert.deepEqual(times(buys), expected(2));
  for (const r of [...exposures, ...clicks, ...buys]) assert.equal(r.key, r.value!.userId);
  assert.ok(exposures.some((r) => r.key === 'kunde-3-ä'));
  assert.equal(new Set((await readAll(place.io, 'items')).map((r) => r.key)).size, 13);
  assert.deepEqual(dead.map((r) => r.value!.reason).sort(), [
    'NOT_WIRE_FORMAT',
    'UNDECODABLE',
    'UNKNOWN_SCHEMA',
  ]);
});

test('own topic, Avro: decoded with the schema of the registry, ends at the end without follow', async (t) => {
  const place = await newPlace(t);
  const topic = `theirs-${stack.newNamespace()}`;
  await createTopic(stack.brokers, topic, 1);
  const schema = {
    type: 'record',
    name: 'Event',
    fields: [
      {
        name: 'customer',
        type: { type: 'record', name: 'Customer', fields: [{ name: 'id', type: 'string' }] },
      },
      { name: 'sku', type: 'string' },
      { name: 'name', type: ['null', 'string'] },
      { name: 'at', type: 'long' },
      { name: 'event', type: { type: 'enum', name: 'What', symbols: ['seen', 'click', 'order'] } },
      { name: 'price', type: 'int' },
      { name: 'impression', type: 'string' },
    ],
  };
  const id = await registerSchema(stack.registryUrl, `${topic}-value`, schema);
  const type = avsc.Type.forSchema(schema as never);
  const header = Buffer.alloc(5);
  header.writeUInt32BE(id, 1);
  await produce(
    stack.brokers,
    topic,
    Array.from({ length: 300 }, (_, i) => ({
      key: null,
      value: Buffer.concat([header, type.toBuffer(foreignRecord(i))]),
    })),
  );
  await writeCsv(place.folder, 'theirs.json', [JSON.stringify(foreign)]);
  const replay = await place.start({
    ONEMALL_REPLAY_SOURCE: `kafka:${topic}`,
    ONEMALL_REPLAY_MAPPING: path.join(place.folder, 'theirs.json'),
  });
  await done(replay);
  assert.equal(await replay.stop(), 0);
  const buys = await readAll(place.io, 'buys');
  assert.equal(buys.length, 100);
  assert.ok(buys.every((r) => r.value!.priceCents >= 100 && r.value!.exposureId!.startsWith('imp-')));
  assert.deepEqual(await readAll(place.io, 'dead-letters'), []);
});
