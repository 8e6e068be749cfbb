/** Fifty seeded schedules on one broker, several at a time. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { planSchedule, runSchedule } from './schedule.ts';

const COUNT = 50;
// Most of a schedule is waiting for sessions to end and processes to come up.
const AT_ONCE = 4;
/** Each of its waits has a limit of its own; this one keeps what has none from silencing the others. */
const LIMIT_MS = 600_000;

let stack: TestStack;
before(async () => {
  stack = await startTestStack({ own: true });
});
after(() => stack.stop());

describe('schedules', { concurrency: AT_ONCE }, () => {
  for (let seed = 1; seed <= COUNT; seed++) {
    const plan = planSchedule(seed);
    const faults = plan.faults.map((f) => f.name).join(', ');
    const name = `schedule ${seed}: ${plan.numRequests} requests, ${plan.numInstances} instances; ${faults}`;
    test(name, { timeout: LIMIT_MS }, async () => {
      const verdict = await runSchedule(stack, plan);
      assert.deepEqual(verdict.firstDifferences, [], JSON.stringify({ plan, verdict }));
      assert.equal(verdict.ok, true);
      assert.ok(verdict.exposures > 0.5 * plan.numRequests, `${verdict.exposures} exposures were judged`);
    });
  }
});
