/** Fifty seeded schedules on one broker, several at a time. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import type { Verdict } from '../../services/sample-assembler/oracle/verify.ts';
import { assertJudged } from './lab.ts';
import { planSchedule, runSchedule } from './schedule.ts';

const COUNT = 50;
// Most of a schedule is waiting for sessions to end and processes to come up.
const AT_ONCE = 4;
/** Each of its waits has a limit of its own; this one keeps what has none from silencing the others. */
const LIMIT_MS = 600_000;

/** Measured: 0.36 to 0.48 and 0.15; where append times tell nothing at all, as when everything is sent at once, 0.18. */
const MOST_UNSURE = { labels: 0.6, histories: 0.25 };

const verdicts: Verdict[] = [];
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
      verdicts.push(verdict);
      assert.ok(verdict.exposures > 0.5 * plan.numRequests, `${verdict.exposures} exposures were judged`);
    });
  }
});

test('schedules: the oracle judged every history, most exactly', () => assertJudged(verdicts, MOST_UNSURE));
