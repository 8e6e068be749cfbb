import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { spawnService } from '@onemall/testkit';

const FIXTURE = 'packages/service-kit/test/service-fixture.ts';
const start = (env: Record<string, string> = {}) => spawnService(FIXTURE, { ONEMALL_CONFIG: '', ...env });

test('a running service is live and ready, and tells its status and metrics', async (t) => {
  const service = await start({ ONEMALL_SEED: '77' });
  t.after(() => service.stop());
  await service.ready();
  const live = await fetch(`${service.url}/live`);
  assert.deepEqual([live.status, await live.json()], [200, { state: 'running' }]);
  const status = await service.status();
  assert.equal(status.service, 'fixture');
  assert.equal(status.out, 3);
  assert.equal(status.state, 'running');
  const metrics = await (await fetch(`${service.url}/metrics`)).text();
  assert.match(metrics, /onemall_records_out_total\{service="fixture"\} 3/);
  assert.match(metrics, /process_cpu_seconds_total/);
  assert.equal((await fetch(`${service.url}/nothing`)).status, 404);
  assert.match(service.logTail(50), /"seed":77/, 'the settings are in the log');
});

test('SIGTERM drains, commits and exits with 0', async () => {
  const service = await start();
  await service.ready();
  assert.equal(await service.stop(), 0);
  const log = service.logTail(50);
  const order = ['draining', 'took no new input', 'committed everything', '"stopped"'].map((m) =>
    log.indexOf(m),
  );
  assert.ok(
    order.every((at, i) => at >= 0 && (i === 0 || at > order[i - 1]!)),
    log,
  );
});

test('a second SIGTERM ends a drain that hangs, with 1', async () => {
  const service = await start({ FIXTURE: 'never-drains' });
  await service.ready();
  process.kill(service.pid, 'SIGTERM');
  const { waitFor } = await import('@onemall/testkit');
  await waitFor(async () => (await service.status()).state === 'draining', {
    timeoutMs: 20_000,
    what: 'the drain to begin',
  });
  assert.equal((await fetch(`${service.url}/ready`)).status, 503, 'a draining service takes no traffic');
  process.kill(service.pid, 'SIGTERM');
  assert.equal((await service.exited).code, 1);
});

test('a drain that takes too long is cut off, with 1 and a reason in the log', async () => {
  const service = await start({ FIXTURE: 'never-drains', DRAIN_MS: '50' });
  await service.ready();
  assert.equal(await service.stop(), 1);
  assert.match(service.logTail(), /the drain took too long/);
});

test('a service that cannot start, or fails later, exits with 1 and says why', async () => {
  for (const [behaviour, reason] of [
    ['fails-at-start', 'no broker answers'],
    ['fails-later', 'the disk is full'],
  ] as const) {
    const service = await start({ FIXTURE: behaviour });
    assert.equal((await service.exited).code, 1);
    assert.match(service.logTail(), new RegExp(reason));
  }
});

test('a taken port is one clear message, with 2', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.after(() => other.close());
  const { port } = other.address() as AddressInfo;
  await assert.rejects(
    start({ ONEMALL_HTTP_PORT: String(port) }),
    (error: unknown) =>
      error instanceof Error &&
      error.message.includes('exit code 2') &&
      error.message.includes(`fixture: port ${port} is taken; set ONEMALL_HTTP_PORT`),
  );
});

test('a wrong setting is one clear message without a stack trace, with 2', async () => {
  await assert.rejects(start({ ONEMALL_SEED: 'abc' }), (error: unknown) => {
    assert.ok(error instanceof Error);
    assert.match(error.message, /exit code 2/);
    assert.match(error.message, /fixture: The configuration is not valid:\n {2}ONEMALL_SEED: .*got "abc"/);
    assert.doesNotMatch(error.message, /at loadConfig/);
    return true;
  });
});
