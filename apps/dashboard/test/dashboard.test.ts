import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { type StageStatus, systemClock } from '@onemall/service-kit';
import pino from 'pino';
import { readConfig } from '../src/config.ts';
import { type Dashboard, serveDashboard } from '../src/server.ts';
import { History, toSeries } from '../src/stages/history.ts';

const status = (out: number, values: Record<string, number> = {}): StageStatus => ({
  service: 's',
  state: 'running',
  in: out,
  out,
  p50Ms: 1,
  p99Ms: 2,
  lag: 0,
  deadLetters: 0,
  values,
  rssBytes: 1,
  upSeconds: 1,
});

test('rates come from counters, a restart begins anew', () => {
  const { services } = toSeries([
    { atMs: 0, services: { s: status(0) } },
    { atMs: 2_000, services: { s: status(10, { loss: 3 }) } },
    { atMs: 3_000, services: { s: status(1) } },
    { atMs: 4_000, services: {} },
  ]);
  assert.deepEqual(services.s!.outPerS, [null, 5, null, null]);
  assert.deepEqual(services.s!.values.loss, [null, 3, null, null]);
});

test('history keeps the newest points and hands out the newest alone', () => {
  const history = new History(2);
  for (let i = 0; i < 4; i++) history.add({ atMs: i * 1_000, services: { s: status(i * 3) } });
  assert.deepEqual(history.series().atS, [2, 3]);
  assert.deepEqual(history.latestSeries().services.s!.outPerS, [3]);
});

let dashboard: Dashboard;
const stop = new AbortController();
const service = createServer((_, response) => response.end(JSON.stringify(status(7, { loss: 2.5 }))));
before(async () => {
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
  const config = readConfig({
    ONEMALL_SERVICES: JSON.stringify({ one: url, gone: 'http://127.0.0.1:1' }),
    ONEMALL_POLL_MS: '100',
    ONEMALL_CLICKHOUSE_PATH: '/nowhere/clickhouse',
  });
  dashboard = await serveDashboard(config, {
    clock: systemClock,
    log: pino({ level: 'silent' }),
    stopping: stop.signal,
  });
});
after(async () => {
  stop.abort();
  await dashboard.close();
  service.close();
});

test('serves the page and everything that it names', async () => {
  const page = await (await fetch(dashboard.url)).text();
  const named = [...page.matchAll(/(?:href|src)="(\/[^"]+)"/g)].map((m) => m[1]!);
  assert.ok(named.length >= 3);
  for (const file of [...named, '/uPlot.js'])
    assert.equal((await fetch(new URL(file, dashboard.url))).status, 200, file);
});

test('streams the state of the services that answer', async () => {
  const response = await fetch(new URL('/api/stream', dashboard.url));
  const reader = response.body!.getReader();
  const text = new TextDecoder().decode((await reader.read()).value);
  await reader.cancel();
  const event = JSON.parse(text.slice('data: '.length)) as { now: { services: Record<string, StageStatus> } };
  assert.deepEqual(Object.keys(event.now.services), ['one']);
  assert.equal(event.now.services.one!.values.loss, 2.5);
});

test('named queries are listed; without a sink the answer says so', async () => {
  const list = (await (await fetch(new URL('/api/queries', dashboard.url))).json()) as { name: string }[];
  assert.ok(list.some((q) => q.name === 'training-loss'));
  const answer = await fetch(new URL('/api/queries/training-loss', dashboard.url));
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), /metrics-sink is not running/);
  assert.equal((await fetch(new URL('/api/queries/none', dashboard.url))).status, 404);
});
