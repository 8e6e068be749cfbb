import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { TOPICS } from '@onemall/contracts';
import { connectKafka, type KafkaIo, type TypedRecord } from '@onemall/kafka-io';
import { spawnService, startTestStack, type TestStack, waitFor } from '@onemall/testkit';

const INPUTS = ['items', 'live-product-changes', 'exposures', 'clicks', 'buys'] as const;
const RETENTION = { largestWindowMs: 20_000, graceMs: 1_000, longestOutageMs: 60_000 };
const WINDOWS = { clickWindowMs: 10_000, buyWindowMs: 20_000 };

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(async () => {
  await stack.stop();
});

/** A namespace with topics and schemas, and the environment of a simulator in it. */
async function newPlace(): Promise<{
  io: KafkaIo;
  dataDir: string;
  env: Record<string, string>;
  close: () => Promise<void>;
}> {
  const namespace = stack.newNamespace();
  const io = await connectKafka({
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    namespace,
    clientId: 'test',
  });
  const names = TOPICS.map((t) => t.name);
  await io.createTopics(names, { retention: RETENTION, numPartitions: 2 });
  await io.registerSchemas(names);
  const dataDir = await mkdtemp(path.join(tmpdir(), 'onemall-simulator-'));
  return {
    io,
    dataDir,
    env: {
      ONEMALL_KAFKA_BROKERS: stack.brokers,
      ONEMALL_REGISTRY_URL: stack.registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_DATA_DIR: dataDir,
      ONEMALL_GRACE_MS: String(RETENTION.graceMs),
      ONEMALL_LONGEST_OUTAGE_MS: String(RETENTION.longestOutageMs),
      ONEMALL_SCENARIOS: JSON.stringify({
        product_card: WINDOWS,
        short_video: WINDOWS,
        live_stream: WINDOWS,
      }),
    },
    close: async () => {
      await io.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Everything in the topic now, decoded. */
async function readAll<T extends (typeof INPUTS)[number]>(io: KafkaIo, topic: T): Promise<TypedRecord<T>[]> {
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

test('what the simulator counts is what the topics hold; every record decodes and has its key', async () => {
  const { io, env, close } = await newPlace();
  const simulator = await spawnService('apps/simulator/src/main.ts', {
    ...env,
    ONEMALL_SIMULATOR_TIMES: 'virtual',
    ONEMALL_SIMULATOR_RATE: '2000',
    ONEMALL_SIMULATOR_MAX_EVENTS: '20000',
    ONEMALL_SIMULATOR_LATE_SHARE: '0',
  });
  await simulator.ready();
  await waitFor(async () => (await simulator.status()).values.done === 1, {
    what: 'maxEvents',
    timeoutMs: 60_000,
  });
  const { out } = await simulator.status();
  assert.equal(await simulator.stop(), 0);

  const [items, changes, exposures, clicks, buys] = [
    await readAll(io, 'items'),
    await readAll(io, 'live-product-changes'),
    await readAll(io, 'exposures'),
    await readAll(io, 'clicks'),
    await readAll(io, 'buys'),
  ];
  assert.equal(items.length + changes.length + exposures.length + clicks.length + buys.length, out);
  assert.ok(exposures.length > 5_000 && clicks.length > 500 && buys.length > 50 && changes.length > 300);
  assert.ok(items.every((r) => r.key === r.value?.itemId));
  assert.ok(changes.every((r) => r.key === r.value?.liveId));
  for (const r of [...exposures, ...clicks, ...buys]) assert.equal(r.key, r.value?.userId);

  const shown = new Set(exposures.map((r) => r.value!.exposureId));
  const known = new Set(items.map((r) => r.value!.itemId));
  assert.ok(exposures.every((r) => known.has(r.value!.itemId)));
  const named = [...clicks, ...buys].filter((r) => r.value!.exposureId !== null);
  assert.ok(named.every((r) => shown.has(r.value!.exposureId!)));
  await close();
});

test('a second start goes on: no id twice, no second catalogue, the rooms of the first are ended', async () => {
  const { io, env, dataDir, close } = await newPlace();
  const run = async (): Promise<void> => {
    const simulator = await spawnService('apps/simulator/src/main.ts', {
      ...env,
      ONEMALL_SIMULATOR_DUPLICATE_SHARE: '0',
      ONEMALL_SIMULATOR_RATE: '500',
    });
    await simulator.ready();
    await waitFor(async () => ((await simulator.status()).values.events_clicks ?? 0) > 50, {
      what: '50 clicks',
      timeoutMs: 60_000,
    });
    assert.equal(await simulator.stop(), 0);
  };
  await run();
  const state = JSON.parse(await readFile(path.join(dataDir, 'simulator', 'state.json'), 'utf8')) as {
    openRooms: string[];
  };
  assert.equal(state.openRooms.length, 40);
  await run();

  const exposures = await readAll(io, 'exposures');
  assert.equal(new Set(exposures.map((r) => r.value!.exposureId)).size, exposures.length);
  const items = await readAll(io, 'items');
  const cards = items.filter((r) => r.value!.scenario !== 'live_stream');
  assert.equal(cards.length, new Set(cards.map((r) => r.key)).size);
  const changes = await readAll(io, 'live-product-changes');
  const ended = new Set(changes.filter((r) => r.value!.kind === 'ROOM_ENDED').map((r) => r.key));
  for (const room of state.openRooms) assert.ok(ended.has(room), `${room} is ended`);
  await close();
});
