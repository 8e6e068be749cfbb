/** The broker itself goes away while traffic flows; the stack is this file's own. */
import { after, before, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { underFault } from './under-fault.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack({ own: true });
});
after(() => stack.stop());

test('the broker restarts under load, beneath two instances', () =>
  underFault(stack, { seed: 51 }, async ({ lab, during }) => {
    const instances = await Promise.all([lab.start(), lab.start()]);
    await Promise.all(instances.map((instance) => lab.owns(instance, 2)));
    await lab.someOut();
    let restarted: Promise<void> | undefined;
    await lab.send(during, async () => {
      restarted ??= stack.restartKafka!('SIGTERM');
    });
    await restarted;
  }));
