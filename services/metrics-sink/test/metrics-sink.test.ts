import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { avroType, TOPICS, type TopicName } from '@onemall/contracts';
import { ClickHouseTables, ClickHouseUnavailableError, openClickHouse } from '../src/adapters/clickhouse.ts';
import { serveSql } from '../src/adapters/sql-server.ts';
import { readConfig } from '../src/config.ts';
import { namedQueries, queryText, runQuery } from '../src/query.ts';
import { renderTable } from '../src/stages/render-table.ts';
import { tableColumns } from '../src/stages/table-schema.ts';
import { toRow } from '../src/stages/to-row.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'onemall-sink-'));
const config = readConfig({ ONEMALL_CLICKHOUSE_PATH: path.join(folder, 'db') });
const clickhouse = await openClickHouse(config);
const tables = new ClickHouseTables(clickhouse.writer, config.clickhouseDatabase);
await tables.create();
const sql = await serveSql(clickhouse.reader, config.clickhouseDatabase, config.sqlHost, 0);
after(async () => {
  await sql.close();
  await clickhouse.close();
  rmSync(folder, { recursive: true, force: true });
});

const ask = async (query: string): Promise<Response> =>
  fetch(sql.url, { method: 'POST', body: JSON.stringify({ query, format: 'JSONEachRow' }) });
const record = (topic: TopicName, offset: number, value: object) => ({
  topic,
  partition: 0,
  offset,
  timestampMs: 5,
  key: 'k',
  value,
});

test('columns follow the schema', () => {
  const columns = Object.fromEntries(tableColumns('training-samples').map((c) => [c.name, c.type]));
  assert.equal(columns.kind, 'LowCardinality(String)');
  assert.equal(columns.clickDelayMs, 'Nullable(Int64)');
  assert.match(columns.sid!, /^Array\(Tuple\(scenario String, codebookVersion Int32, c1 Int32/);
  assert.equal(columns.history, undefined);
});

test('a random value of every schema goes in and comes out again', async () => {
  for (const spec of TOPICS) {
    const value = avroType(spec.schema).random() as object;
    await tables.insert(spec.name, [toRow(record(spec.name, 1, value))]);
    const table = spec.name.replaceAll('-', '_');
    const rows = (await (await ask(`SELECT count() AS n FROM {database}.${table} FINAL`)).json()) as {
      n: number;
    };
    assert.equal(rows.n, 1, spec.name);
  }
});

test('nullable records become no or one element, bytes become base64', async () => {
  const letter = {
    service: 's',
    reason: 'R',
    detail: '',
    topic: 't',
    partition: 0,
    offset: 1,
    appendTimeMs: 1,
    key: null,
    payload: Buffer.from([0, 255]),
    createdMs: 1,
  };
  const row = toRow(record('dead-letters', 2, letter));
  assert.equal(row.payload, 'AP8=');
  assert.equal(row.key, null);
  const live = avroType('LiveSid').random() as unknown as Record<string, unknown>;
  assert.deepEqual(toRow(record('live-sids', 3, { ...live, sid: null })).sid, []);
});

test('inserting the same records twice leaves one row each', async () => {
  const click = { actionId: 'a', exposureId: null, userId: 'u', itemId: 'i', eventTimeMs: 9 };
  for (let i = 0; i < 2; i++)
    await tables.insert(
      'clicks',
      [100, 101].map((o) => toRow(record('clicks', o, click))),
    );
  const n = (await (
    await ask('SELECT count() AS n FROM {database}.clicks FINAL WHERE _offset >= 100')
  ).json()) as { n: number };
  assert.equal(n.n, 2);
});

test('the offset saved last counts, also after a topic was made anew', async () => {
  await tables.saveOffsets([{ topic: 'clicks', partition: 1, offset: 10 }]);
  await tables.saveOffsets([{ topic: 'clicks', partition: 1, offset: 7 }]);
  assert.deepEqual(await tables.offsets(), [{ topic: 'clicks', partition: 1, offset: 7 }]);
});

test('SQL over HTTP reads and never writes', async () => {
  assert.equal((await ask('DROP TABLE {database}.clicks')).status, 400);
  assert.equal((await ask('SELEC 1')).status, 400);
  assert.equal((await fetch(sql.url, { method: 'POST', body: 'no json' })).status, 400);
  assert.equal((await fetch(sql.url.replace('/sql', '/'))).status, 404);
});

test('every named query runs', async () => {
  assert.ok(namedQueries().length >= 8);
  for (const { name, about } of namedQueries()) {
    assert.ok(about.length > 20, name);
    const response = await ask(queryText(name));
    assert.equal(response.status, 200, `${name}: ${await response.text()}`);
  }
  assert.throws(() => queryText('nothing'), /known are/);
});

test('the hit rates of both writers are shown, weighed by requests, with what they are compared to', async () => {
  const metric = (source: string, values: Record<string, number>) => ({
    source,
    scenario: 'short_video',
    version: 'policy-9',
    step: 0,
    values,
    createdMs: 1_700_000_000_000,
  });
  interface HitRateRow {
    policy_version: string;
    source: string;
    requests: number;
    hit_rates: Record<string, number>;
  }
  const points = [
    metric('retriever', { requests: 3, hits_50: 3, hr_50: 1, legality: 0.9 }),
    metric('retriever', { requests: 1, hits_50: 0, hr_50: 0, legality: 0.9 }),
    metric('job-runner', {
      requests: 8,
      items: 200,
      policyVersions: 1,
      hr_viewed_50: 0.5,
      hr_clicked_50: 0.75,
      popularity_viewed_50: 0.375,
      random_viewed_50: 0.25,
    }),
  ];
  await tables.insert(
    'retrieval-metrics',
    points.map((value, i) => toRow(record('retrieval-metrics', 200 + i, value))),
  );
  const lines = (await (await ask(queryText('hit-rate'))).text()).trim().split('\n');
  const rows = lines
    .map((line) => JSON.parse(line) as HitRateRow)
    .filter((row) => row.policy_version === 'policy-9')
    .map(({ source, requests, hit_rates: rates }) => ({ source, requests, rates }))
    .sort((a, b) => (a.source < b.source ? -1 : 1));
  assert.deepEqual(rows, [
    {
      source: 'job-runner',
      requests: 8,
      rates: { hr_viewed_50: 0.5, hr_clicked_50: 0.75, popularity_viewed_50: 0.375, random_viewed_50: 0.25 },
    },
    { source: 'retriever', requests: 4, rates: { hr_50: 0.75 } },
  ]);
});

test('policy arms: means per request and their differences to base are those worked out by hand', async () => {
  const template = avroType('TrainingSample').random() as unknown as { exposure: object };
  let offset = 500;
  const sample = (requestId: string, position: number, clicked: boolean, buyValueCents: number) =>
    toRow(
      record('training-samples', offset++, {
        ...template,
        kind: 'FINAL',
        clicked,
        bought: buyValueCents > 0,
        buyValueCents,
        exposure: { ...template.exposure, requestId, exposureId: `${requestId}:${position}` },
      }),
    );
  // base: CTR 1/2 and 0, one order of 30.00; grpo: CTR 1 and 1/2 and 1/2, orders 1, 0, 2
  await tables.insert('training-samples', [
    sample('rx-1@base', 0, true, 3_000),
    sample('rx-1@base', 1, false, 0),
    sample('rx-2@base', 0, false, 0),
    sample('rx-3@grpo', 0, true, 1_000),
    sample('rx-4@grpo', 0, true, 0),
    sample('rx-4@grpo', 1, false, 0),
    sample('rx-5@grpo', 0, true, 2_000),
    sample('rx-5@grpo', 1, false, 6_000),
    sample('rx-6', 0, false, 0),
  ]);
  const lines = (await (await ask(queryText('policy-arms'))).text()).trim().split('\n');
  interface ArmRow {
    arm: string;
    requests: number;
    ctr: number;
    orders_per_request: number;
    gmv_per_request: number;
    against_base_low_high: Record<'ctr' | 'orders' | 'gmv', number[]>;
  }
  const rows = new Map(lines.map((line) => JSON.parse(line) as ArmRow).map((row) => [row.arm, row]));
  const base = rows.get('base')!;
  assert.deepEqual(
    [base.requests, base.ctr, base.orders_per_request, base.gmv_per_request],
    [2, 0.25, 0.5, 15],
  );
  assert.deepEqual(base.against_base_low_high.ctr, []);
  const grpo = rows.get('grpo')!;
  assert.deepEqual(
    [grpo.requests, grpo.ctr, grpo.orders_per_request, grpo.gmv_per_request],
    [3, 0.66667, 1, 30],
  );
  // CTR: variances 1/8 over 2 requests, 1/12 over 3; orders: 1/2 over 2, 1 over 3
  const half = (a: number, b: number): number => 1.96 * Math.sqrt(a + b);
  const near = (actual: number[], mean: number, width: number): void =>
    [mean, mean - width, mean + width].forEach((x, i) => {
      assert.ok(Math.abs(actual[i]! - x) < 2e-5, `${actual}, expected ${mean} +- ${width}`);
    });
  near(grpo.against_base_low_high.ctr, 2 / 3 - 1 / 4, half(1 / 16, 1 / 36));
  near(grpo.against_base_low_high.orders, 0.5, half(1 / 4, 1 / 3));
  assert.ok(rows.get('logging')!.requests >= 1);
});

test('a folder without a database says what to do', async () => {
  const absent = readConfig({ ONEMALL_CLICKHOUSE_PATH: path.join(folder, 'absent') });
  await assert.rejects(runQuery(absent, 'SELECT 1', 'json'), /npm start/);
});

test('a folder that another process holds is refused with a way out', async () => {
  const { spawnSync } = await import('node:child_process');
  const script = `import { openClickHouse, ClickHouseUnavailableError } from ${JSON.stringify(new URL('../src/adapters/clickhouse.ts', import.meta.url).href)};
    import { readConfig } from ${JSON.stringify(new URL('../src/config.ts', import.meta.url).href)};
    try { await openClickHouse(readConfig()); } catch (e) { console.log(e.name + ': ' + e.message); process.exit(7); }`;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { ...process.env, ONEMALL_CLICKHOUSE_PATH: config.clickhousePath },
  });
  assert.equal(status, 7);
  assert.match(stdout, new RegExp(ClickHouseUnavailableError.name));
  assert.match(stdout, /npm run query/);
});

test('the terminal table aligns numbers to the right', () => {
  const text = renderTable({
    meta: [
      { name: 'a', type: 'String' },
      { name: 'n', type: 'UInt64' },
    ],
    data: [
      ['x', 5],
      ['yy', 100],
    ],
  });
  assert.equal(text, 'a     n\n──  ───\nx     5\nyy  100\n');
  assert.equal(renderTable({ meta: [], data: [] }), 'No rows yet.\n');
});
