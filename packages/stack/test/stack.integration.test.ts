import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { freePorts, Guardian, isKafkaReady, isRedisReady, startLocalStack } from '../src/index.ts';

function setUp(t: { after(done: () => void): void }) {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  const guardian = new Guardian();
  guardian.removeFolder(dataDir);
  t.after(() => {
    guardian.close();
    rmSync(dataDir, { recursive: true, force: true });
  });
  return { dataDir, guardian };
}

test('a stack goes on from its data on the same ports, also after its broker was killed', async (t) => {
  const options = { ...setUp(t), redis: true };
  const first = await startLocalStack(options);
  const subject = `${first.registryUrl}/subjects/kept-value/versions`;
  const schema = { schema: JSON.stringify({ type: 'record', name: 'Kept', fields: [] }) };
  const registered = await fetch(subject, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(schema),
  });
  assert.equal(registered.status, 200);
  for (const child of first.processes) assert.ok(child.rssBytes() > 1_000_000, child.name);
  // The hard way: the broker refuses its own return until its old session has ended, and the start waits for that.
  for (const child of first.processes) child.kill('SIGKILL');
  await first.stop();

  const second = await startLocalStack(options);
  try {
    assert.deepEqual(
      [second.brokers, second.registryUrl, second.redisUrl],
      [first.brokers, first.registryUrl, first.redisUrl],
    );
    assert.equal(await isKafkaReady(Number(second.brokers.split(':')[1])), true);
    if (second.redisUrl) assert.equal(await isRedisReady(Number(new URL(second.redisUrl).port)), true);
    assert.deepEqual(await (await fetch(subject)).json(), [1], 'the registered schema is still there');
  } finally {
    await second.stop();
  }
});

test('a port that was asked for and is taken is one clear error, and nothing is left running', async (t) => {
  const { dataDir, guardian } = setUp(t);
  const [port] = await freePorts(1);
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
  t.after(() => other.close());
  await assert.rejects(
    startLocalStack({ dataDir, guardian, redis: false, ports: { kafka: port! } }),
    new RegExp(`Port ${port}, asked for kafka, is taken by another program`),
  );
});
