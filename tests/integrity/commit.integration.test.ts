/** Crashes and strangers around the commit of a transaction, at exact places. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { NUM_PARTITIONS } from './lab.ts';
import { underFault } from './under-fault.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

// Side by side: each has a namespace of its own, and most of the time is that of session timeouts.
describe('around the commit', { concurrency: 2 }, () => {
  for (const side of ['request', 'answer'] as const)
    test(`kill -9 ${side === 'request' ? 'before' : 'after'} EndTxn reaches the broker`, () =>
      underFault(stack, { seed: side === 'request' ? 21 : 22 }, async ({ lab, during }) => {
        const instance = await lab.startAlone();
        await lab.someOut();
        const hold = instance.proxy.hold('EndTxn', side);
        await lab.send(during);
        await hold.held;
        await instance.kill();
        await lab.startAlone();
      }));

  test('the answer to EndTxn is lost: the state is dropped, rebuilt, and nothing leaves twice', () =>
    underFault(stack, { seed: 23 }, async ({ lab, during }) => {
      const instance = await lab.startAlone();
      await lab.someOut();
      const hold = instance.proxy.hold('EndTxn', 'answer');
      await lab.send(during);
      await hold.held;
      instance.proxy.cut();
      await waitFor(async () => (await instance.status()).values.transactions_aborted! > 0, {
        what: 'the dropped state',
        timeoutMs: 60_000,
      });
    }));

  test('a zombie that slept in mid-transaction wakes up after another took over: it is fenced', () =>
    underFault(stack, { seed: 24 }, async ({ lab, during }) => {
      const zombie = await lab.startAlone();
      await lab.someOut();
      const hold = zombie.proxy.hold('EndTxn', 'request');
      await lab.send(during);
      await hold.held;
      zombie.pause();
      const heir = await lab.startAlone();
      const numBefore = await lab.numSamples();
      // Its EndTxn comes now, and whatever else it had in its buffers when it wakes.
      hold.release();
      zombie.resume();
      await waitFor(async () => (await zombie.status()).values.transactions_aborted! > 0, {
        what: 'the zombie to find out',
        timeoutMs: 60_000,
      });
      assert.match(zombie.logTail(50), /FencedError/);
      assert.ok((await lab.numSamples()) >= numBefore);
      await zombie.stop();
      await lab.owns(heir, NUM_PARTITIONS);
    }));

  test('a rebalance comes in the middle of a transaction', () =>
    underFault(stack, { seed: 25 }, async ({ lab, during }) => {
      const first = await lab.startAlone();
      await lab.someOut();
      const hold = first.proxy.hold('EndTxn', 'request');
      await lab.send(during);
      await hold.held;
      const second = await lab.start();
      // The group waits for the first member, which waits for its transaction.
      await second.ready();
      hold.release();
      await Promise.all([lab.owns(first, 2), lab.owns(second, 2)]);
      await first.stop();
      await lab.owns(second, NUM_PARTITIONS);
    }));
});
