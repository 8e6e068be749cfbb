import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKafkaReady } from '@onemall/stack';
import { startTestStack } from '../src/index.ts';

test('a test stack of its own comes up with a broker and a strict registry, and goes away', async (t) => {
  const shared = process.env.ONEMALL_TEST_STACK;
  delete process.env.ONEMALL_TEST_STACK;
  t.after(() => {
    if (shared) process.env.ONEMALL_TEST_STACK = shared;
  });
  const stack = await startTestStack();
  const port = Number(stack.brokers.split(':')[1]);
  try {
    assert.equal(await isKafkaReady(port), true);
    const config = (await (await fetch(`${stack.registryUrl}/config`)).json()) as Record<string, string>;
    assert.equal(config.compatibilityLevel, 'BACKWARD_TRANSITIVE');
    assert.notEqual(stack.newNamespace(), stack.newNamespace());
    assert.equal(stack.redisUrl, null, 'Redis only where asked');
  } finally {
    await stack.stop();
  }
  assert.equal(await isKafkaReady(port), false);
});
