/** The broker itself goes away while traffic flows; the stack is this file's own. */
import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { type HeldCommits, holdCommits } from './held-commits.ts';
import { type Instance, type Lab, NUM_PARTITIONS } from './lab.ts';
import { Operator } from './open-transactions.ts';
import { underFault } from './under-fault.ts';

/** Each of its waits has a limit of its own; this one is for those of a broker that does not come back. */
const LIMIT_MS = 240_000;

let stack: TestStack;
before(async () => {
  stack = await startTestStack({ own: true });
});
after(() => stack.stop());

async function startTwo(lab: Lab): Promise<Instance[]> {
  const instances = await Promise.all([lab.start(), lab.start()]);
  await Promise.all(instances.map((instance) => lab.owns(instance, NUM_PARTITIONS / 2)));
  await lab.someOut();
  return instances;
}

/** None has ended, and each has its share of the partitions again. */
async function liveOn(lab: Lab, instances: readonly Instance[]): Promise<void> {
  await Promise.all(instances.map((instance) => lab.owns(instance, NUM_PARTITIONS / 2)));
  const pids = (of: readonly Instance[]): Set<number> => new Set(of.map(({ pid }) => pid));
  assert.deepEqual(pids(lab.instances), pids(instances));
}

for (const [signal, how, seed] of [
  ['SIGTERM', 'is stopped', 51],
  ['SIGKILL', 'is killed', 52],
] as const)
  test(`the broker ${how} and started again under load: two instances live on`, { timeout: LIMIT_MS }, () =>
    underFault(stack, { seed }, async ({ lab, during }) => {
      const instances = await startTwo(lab);
      const commits = await holdCommits(lab);
      const half = during.length >> 1;
      await lab.send(during.slice(0, half));
      await commits.held;
      await Promise.all([stack.restartKafka!(signal), lab.send(during.slice(half))]);
      commits.release();
      await liveOn(lab, instances);
    }),
  );

async function loseTransactions(dataDir: string): Promise<void> {
  for (const name of await readdir(dataDir))
    if (name.startsWith('__transaction_state-')) await rm(path.join(dataDir, name), { recursive: true });
}

test(
  'a coordinator has lost its transactions: what hangs is aborted as the runbook says, and nothing is lost',
  { timeout: LIMIT_MS },
  () =>
    underFault(stack, { seed: 53 }, async ({ lab, during }) => {
      let operator = await Operator.connect(stack.brokers);
      const open = (topics: readonly string[]) => operator.openTransactions(topics, NUM_PARTITIONS);
      const written = (['training-samples', 'late-events', 'dead-letters'] as const).map((t) =>
        lab.physical(t),
      );
      try {
        // A test before kills its instances, some in the transaction of a snapshot: theirs stay open until they time out.
        await lab.committed(); // the first group makes __consumer_offsets
        const others = new Set((await open(['__consumer_offsets'])).map(({ producerId }) => producerId));
        const instances = await startTwo(lab);
        let commits: HeldCommits | undefined;
        let sent = 0;
        // A transaction may hold offsets alone: another try until one holds samples too.
        while (!commits || (await open(written)).length === 0) {
          commits?.release();
          commits = await holdCommits(lab);
          await lab.send(during.slice(sent, sent + 50));
          sent += 50;
          await commits.held;
        }
        await Promise.all([stack.restartKafka!('SIGKILL', loseTransactions), lab.send(during.slice(sent))]);
        commits.release();
        // All four partitions were in mid-transaction, and nobody knows of that any more.
        await waitFor(
          async () => {
            const all = await Promise.all(instances.map((instance) => instance.status()));
            return all.reduce((n, { values }) => n + values.partitions_taking_over!, 0) === NUM_PARTITIONS;
          },
          { what: 'four partitions that cannot be taken over', timeoutMs: 60_000 },
        );
        await waitFor(() => instances.every((i) => i.logTail(200).includes('UNSTABLE_OFFSET_COMMIT')), {
          what: 'both to say why',
          timeoutMs: 60_000,
        });
        await operator.close();
        operator = await Operator.connect(stack.brokers);
        const samples = await open(written);
        const offsets = (await open(['__consumer_offsets'])).filter((t) => !others.has(t.producerId));
        const producers = new Set(offsets.map(({ producerId }) => producerId));
        assert.equal(producers.size, NUM_PARTITIONS);
        assert.ok(samples.length > 0 && samples.every(({ producerId }) => producers.has(producerId)));
        // The topics of samples first: once the offsets are free the service goes on.
        for (const transaction of [...samples, ...offsets]) await operator.abort(transaction);
        await liveOn(lab, instances);
      } finally {
        await operator.close();
      }
    }),
);
