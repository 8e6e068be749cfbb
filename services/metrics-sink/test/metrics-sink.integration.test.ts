import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { TOPICS } from '@onemall/contracts';
import { connectKafka, type KafkaIo } from '@onemall/kafka-io';
import { type SpawnedService, spawnService, startTestStack, waitFor } from '@onemall/testkit';
import { ClickHouseTables, openClickHouse } from '../src/adapters/clickhouse.ts';
import { readConfig } from '../src/config.ts';

const stack = await startTestStack();
const folder = mkdtempSync(path.join(tmpdir(), 'onemall-sink-'));
const closing: (() => Promise<unknown>)[] = [];
after(async () => {
  for (const close of closing.reverse()) await close();
  rmSync(folder, { recursive: true, force: true });
  await stack.stop();
});

const namespace = stack.newNamespace();
const clickhousePath = path.join(folder, 'db');
const env = {
  ONEMALL_KAFKA_BROKERS: stack.brokers,
  ONEMALL_REGISTRY_URL: stack.registryUrl,
  ONEMALL_NAMESPACE: namespace,
  ONEMALL_CLICKHOUSE_PATH: clickhousePath,
  ONEMALL_DATA_DIR: folder,
  ONEMALL_SINK_FLUSH_MS: '50',
};
const retention = { largestWindowMs: 1_000, graceMs: 0, longestOutageMs: 0 };

async function setUp(): Promise<KafkaIo> {
  const io = await connectKafka({
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    namespace,
    clientId: 'sink-test',
  });
  closing.push(() => io.close());
  const names = TOPICS.map((t) => t.name);
  await io.createTopics(names, { retention });
  await io.registerSchemas(names);
  return io;
}

async function count(table: string, database = clickhousePath): Promise<number> {
  const { sqlUrl } = JSON.parse(readFileSync(`${database}.address.json`, 'utf8')) as { sqlUrl: string };
  const query = `SELECT count() AS n FROM {database}.${table} FINAL`;
  const response = await fetch(sqlUrl, {
    method: 'POST',
    body: JSON.stringify({ query, format: 'JSONEachRow' }),
  });
  assert.equal(response.status, 200);
  return ((await response.json()) as { n: number }).n;
}

test('every record becomes one row, through kill -9 and restart; poison bytes stop nothing', async () => {
  const io = await setUp();
  const writer = await io.openWriter();
  closing.push(() => writer.close());
  const click = (i: number) => ({
    topic: 'clicks' as const,
    key: `u${i % 7}`,
    value: { actionId: `a${i}`, exposureId: null, userId: `u${i % 7}`, itemId: 'i', eventTimeMs: i },
  });
  const batch = (from: number) => Array.from({ length: 500 }, (_, i) => click(from + i));
  await writer.send(batch(0));
  await writer.send([{ topic: 'training-metrics', key: 'poison', valueBytes: Buffer.from('not avro') }]);

  let sink: SpawnedService = await spawnService('metrics-sink', env);
  closing.push(() => sink.stop());
  await sink.ready();
  await waitFor(async () => (await count('clicks')) === 500, {
    timeoutMs: 30_000,
    what: '500 clicks in ClickHouse',
  });
  await writer.send(batch(500));
  await sink.kill();
  await writer.send(batch(1_000));
  sink = await spawnService('metrics-sink', env);
  await sink.ready();
  await waitFor(async () => (await count('clicks')) === 1_500, {
    timeoutMs: 30_000,
    what: '1,500 clicks in ClickHouse',
  });

  await waitFor(async () => (await count('dead_letters')) === 1, {
    timeoutMs: 30_000,
    what: 'the poison record among the dead letters',
  });
  const status = await sink.status();
  assert.equal(status.lag, 0);
  assert.equal(await sink.stop(), 0);
});

test('a topic that was made anew goes on at its earliest record', async () => {
  const io = await connectKafka({
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    namespace: `${namespace}-anew`,
    clientId: 'sink-test',
  });
  closing.push(() => io.close());
  const names = TOPICS.map((t) => t.name);
  await io.createTopics(names, { retention });
  await io.registerSchemas(names);
  const folderAnew = path.join(folder, 'anew');
  const config = readConfig({ ONEMALL_CLICKHOUSE_PATH: folderAnew });
  const clickhouse = await openClickHouse(config);
  const tables = new ClickHouseTables(clickhouse.writer, config.clickhouseDatabase);
  await tables.create();
  const partitions = await io.endOffsets('clicks');
  await tables.saveOffsets(partitions.map((p) => ({ ...p, offset: 1_000 })));
  await clickhouse.close();
  const writer = await io.openWriter();
  closing.push(() => writer.close());
  const value = { actionId: 'a', exposureId: null, userId: 'u', itemId: 'i', eventTimeMs: 1 };
  await writer.send([{ topic: 'clicks', key: 'u', value }]);
  const sink = await spawnService('metrics-sink', {
    ...env,
    ONEMALL_NAMESPACE: `${namespace}-anew`,
    ONEMALL_CLICKHOUSE_PATH: folderAnew,
  });
  closing.push(() => sink.stop());
  await sink.ready();
  await waitFor(async () => (await count('clicks', folderAnew)) === 1, {
    timeoutMs: 30_000,
    what: 'the click after the gap',
  });
  assert.ok((await sink.status()).values.partitions_with_gaps! >= 1);
});
