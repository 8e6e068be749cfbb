/** Against numbers worked out by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  comparePolicies,
  gpmScale,
  type JudgedRequest,
  type Judgement,
  policyTable,
  topMeans,
} from '../../src/world/judge-lists.ts';

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual}, expected ${expected}`);
/** n equal items. */
const equal = (n: number, pCtr: number, pCtcvr: number, valueCents: number): Judgement => ({
  pCtr: Array(n).fill(pCtr),
  pCtcvr: Array(n).fill(pCtcvr),
  valueCents: Array(n).fill(valueCents),
});

test('means run over the first K, or over what a shorter list has', () => {
  // 10 items with 0.2, then 10 with 0.1: the first 10 give 0.2, the first 100 are all 20
  const list: Judgement = {
    pCtr: [...Array(10).fill(0.2), ...Array(10).fill(0.1)],
    pCtcvr: [...Array(10).fill(0.02), ...Array(10).fill(0)],
    valueCents: [...Array(10).fill(50), ...Array(10).fill(30)],
  };
  const [ten, hundred, all] = topMeans(list, 200);
  near(ten!.ctr, 0.2);
  near(ten!.ctcvr, 0.02);
  near(ten!.gpm, 0.25);
  near(ten!.reward, 0.2 + 30 * 0.02 + 0.25);
  near(hundred!.ctr, 0.15);
  near(hundred!.ctcvr, 0.01);
  near(hundred!.gpm, 0.2);
  near(hundred!.reward, 0.15 + 0.3 + 0.2);
  near(all!.reward, hundred!.reward);
  assert.throws(() => topMeans(equal(0, 0, 0, 0), 1), /empty list/);
});

test('the scale makes GPM 1.25 times CTR in the first ten of the base policy', () => {
  // lists of one request each: mean CTR (0.1 + 0.3) / 2, mean value (40 + 60) / 2; only the first ten count
  const long: Judgement = {
    pCtr: [...Array(10).fill(0.3), 0.9],
    pCtcvr: [...Array(10).fill(0), 0],
    valueCents: [...Array(10).fill(60), 9_999],
  };
  near(gpmScale([equal(10, 0.1, 0, 40), long]), 50 / (1.25 * 0.2));
  assert.throws(() => gpmScale([equal(3, 0.1, 0, 0)]), /no scale fits/);
});

test('policies are compared on the same requests, each scenario with its own scale', () => {
  const requests: JudgedRequest[] = Array.from({ length: 200 }, (_, request) => {
    // requests differ a lot; the second policy is better by 0.01 CTR in each
    const ctr = 0.05 + (request % 10) / 20;
    const cents = request % 2 ? 10 : 1_000;
    return {
      request,
      scenario: request % 2 ? 'cheap' : 'dear',
      lists: {
        base: equal(10, ctr, 0.001, cents * ctr),
        better: equal(10, ctr + 0.01, 0.001, cents * ctr),
        other: equal(10, request % 4 < 2 ? ctr + 0.02 : ctr - 0.02, 0.001, cents * ctr),
      },
    };
  });
  const { rows, scales } = comparePolicies(requests, 'base');
  near(scales.cheap!, 10 / 1.25);
  near(scales.dear!, 1_000 / 1.25);
  const [base, better, other] = ['base', 'better', 'other'].map(
    (policy) => rows.find((r) => r.policy === policy && r.top === 10)!,
  );
  near(base!.measures.ctr, 0.275);
  near(base!.measures.gpm, 1.25 * 0.275);
  near(base!.measures.reward, 0.275 + 0.03 + 1.25 * 0.275);
  assert.equal(base!.difference, null);
  near(better!.difference!.mean, 0.01);
  near(better!.difference!.low, 0.01);
  near(better!.relative!, 0.01 / base!.measures.reward);
  // better in half of them and worse by as much in the other half: the interval holds 0
  assert.ok(other!.difference!.low < 0 && other!.difference!.high > 0);
  assert.match(
    policyTable(rows),
    /\| 10 \| better \| 0\.2850 \| 0\.0010 \| 0\.3438 \| 0\.6588 \| \+1\.54 % \| 0\.0100 to 0\.0100 \|/,
  );
});
