/** Against numbers worked out by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  comparePolicies,
  gpmScale,
  type JudgedRequest,
  topMeans,
} from '../../src/world/judging/compare-policies.ts';
import type { JudgedArms } from '../../src/world/judging/judge-arms.ts';
import type { Judgement } from '../../src/world/judging/judges.ts';
import { pairTable, policyTable } from '../../src/world/reports/policy-tables.ts';
import { rlReport } from '../../src/world/reports/rl-report.ts';

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual}, expected ${expected}`);
/** n equal items. */
const list = (n: number, pCtr: number, pCtcvr: number, valueCents: number): Judgement => ({
  pCtr: Array(n).fill(pCtr),
  pCtcvr: Array(n).fill(pCtcvr),
  valueCents: Array(n).fill(valueCents),
});
const equal = (...of: Parameters<typeof list>) => topMeans(list(...of));

test('means run over the first K, or over what a shorter list has', () => {
  // 10 items with 0.2, then 10 with 0.1: the first 10 give 0.2, the first 100 are all 20
  const [ten, hundred, all] = topMeans({
    pCtr: [...Array(10).fill(0.2), ...Array(10).fill(0.1)],
    pCtcvr: [...Array(10).fill(0.02), ...Array(10).fill(0)],
    valueCents: [...Array(10).fill(50), ...Array(10).fill(30)],
  });
  near(ten!.ctr, 0.2);
  near(ten!.ctcvr, 0.02);
  near(ten!.valueCents, 50);
  near(hundred!.ctr, 0.15);
  near(hundred!.ctcvr, 0.01);
  near(hundred!.valueCents, 40);
  assert.deepEqual(all, hundred);
  assert.throws(() => equal(0, 0, 0, 0), /empty list/);
});

test('the scale makes GPM 1.25 times CTR in the first ten of the base policy', () => {
  // lists of one request each: mean CTR (0.1 + 0.3) / 2, mean value (40 + 60) / 2; only the first ten count
  const long: Judgement = {
    pCtr: [...Array(10).fill(0.3), 0.9],
    pCtcvr: [...Array(10).fill(0), 0],
    valueCents: [...Array(10).fill(60), 9_999],
  };
  near(gpmScale([equal(10, 0.1, 0, 40), topMeans(long)]), 50 / (1.25 * 0.2));
  assert.throws(() => gpmScale([equal(3, 0.1, 0, 0)]), /no scale fits/);
});

/** Requests that differ a lot; `better` is better by `gain` CTR in each, `other` by 0.02 in half of them and worse in the rest. */
const requests = (gain: number): JudgedRequest[] =>
  Array.from({ length: 200 }, (_, request) => {
    const ctr = 0.05 + (request % 10) / 20;
    const cents = request % 2 ? 10 : 1_000;
    return {
      request,
      scenario: request % 2 ? 'cheap' : 'dear',
      lists: {
        base: equal(10, ctr, 0.001, cents * ctr),
        better: equal(10, ctr + gain, 0.001, cents * ctr),
        other: equal(10, request % 4 < 2 ? ctr + 0.02 : ctr - 0.02, 0.001, cents * ctr),
      },
    };
  });

test('policies are compared in pairs on the same requests, each scenario with its own scale', () => {
  const { rows, pairs } = comparePolicies([requests(0.01)], 'base');
  const base = rows.find((r) => r.policy === 'base' && r.top === 10)!.measures;
  near(base.ctr, 0.275);
  near(base.gpm, 1.25 * 0.275); // both scenarios: 10 / 1.25 and 1,000 / 1.25 cents are worth 1
  near(base.reward, 0.275 + 0.03 + 1.25 * 0.275);
  const pair = (policy: string, against: string) =>
    pairs.find((p) => p.policy === policy && p.against === against && p.top === 10)!;
  const better = pair('better', 'base');
  near(better.difference.mean, 0.01);
  near(better.difference.low, 0.01);
  near(better.relative, 0.01 / base.reward);
  // better in half of them and worse by as much in the other half: the interval holds 0
  const other = pair('other', 'base');
  assert.ok(other.difference.low < 0 && other.difference.high > 0);
  near(pair('other', 'better').difference.mean, -0.01);
  assert.match(policyTable(rows), /\| 10 \| better \| 0\.2850 \| 0\.0010 \| 0\.3438 \| 0\.6588 \|/);
  assert.match(
    pairTable(pairs),
    /\| 10 \| better - base \| 0\.0100 \| 0\.0100 to 0\.0100 \| \+1\.54 % \| \+1\.54 % \|/,
  );
});

test('seeds are pooled by request: means over seeds, one draw takes a request with all its seeds', () => {
  const { rows, pairs } = comparePolicies([requests(0.03), requests(-0.01)], 'base');
  const better = pairs.find((p) => p.policy === 'better' && p.against === 'base' && p.top === 10)!;
  // every request has +0.03 and -0.01: its mean is 0.01 whatever is drawn, so seeds do not widen the interval over requests
  near(better.difference.mean, 0.01);
  near(better.difference.low, 0.01);
  near(better.difference.high, 0.01);
  const base = rows.find((r) => r.policy === 'base' && r.top === 10)!.measures.reward;
  near(better.relativeBySeed[0]!, 0.03 / base);
  near(better.relativeBySeed[1]!, -0.01 / base);
  near(rows.find((r) => r.policy === 'better' && r.top === 10)!.measures.ctr, 0.285);
});

test('the report of two seeds has all pairs, in reward and in hits, and the hits of lists without a model', () => {
  const judged = (hit: number): JudgedArms => ({
    lists: requests(0.01).map(({ request, lists }) => ({
      ...{ request, scenario: 'product_card', truth: lists, second: lists },
      ...{ ranks: {}, agreement: [0.5, 0.4, 0.3] },
    })),
    hits: requests(0.01).map(({ request }) => ({
      request,
      scenario: 'product_card',
      viewed: {
        random: [0.1, 0.1, 0.1],
        popularity: [0.15, 0.2, 0.3],
        oracle: [0.9, 0.9, 1],
        ...{ base: [0.2, 0.4, 0.8], better: [0.2 + hit, 0.4, 0.8], other: [0.2, 0.4, 0.4] },
      },
      clicked:
        request === 0
          ? {}
          : {
              random: [0, 0, 0],
              popularity: [0.1, 0.1, 0.1],
              oracle: [1, 1, 1],
              base: [0.5, 0.5, 0.5],
              better: [0.6, 0.6, 0.6],
              other: [0.5, 0.5, 0.5],
            },
    })),
  });
  const facts = (seed: number) => ({
    plan: { hash: 'abc' },
    seed,
    rlSteps: 5,
    rolloutWidth: 8,
    groupsPerStep: 1,
    syncSteps: 2,
    rlWeight: 0.5,
  });
  const report = rlReport([facts(1), facts(2)], [judged(0.01), judged(0.03)]);
  assert.match(report, /plan abc, seed 1, 2; 200, 200 requests/);
  for (const pair of ['better - base', 'other - base', 'other - better'])
    assert.equal(report.split(`| ${pair} |`).length - 1, 3 + 3 + 1 + 1 + 2, pair);
  assert.match(report, /\| better - base \| 2\.00 \(2\.00 to 2\.00\), \+10\.00 % \| 0\.00 \(/);
  assert.match(
    report,
    /\| random \| 10\.00 \| 10\.00 \| 10\.00 \|\n\| popularity \| 15.*\n\| oracle \| 90\.00 \| 90\.00 \| 100\.00 \|\n\| base/,
  );
  assert.doesNotMatch(report, /(random|oracle) -|- (random|oracle) \|/);
  assert.match(report, /\| other \| 20\.00 \| 40\.00 \| 40\.00 \|/);
  // by scenario: the mean of both seeds
  const same = '0.0 (0.0 to 0.0)';
  assert.ok(
    report.includes(
      [
        '| scenario | items | requests | random | popularity | base | better | other | oracle | better - base | other - base | other - better |',
        '|---|---|---|---|---|---|---|---|---|---|---|---|',
        `| product_card | viewed | 200 | 10.0 | 15.0 | 20.0 | 22.0 | 20.0 | 90.0 | 2.0 (2.0 to 2.0) | ${same} | -2.0 (-2.0 to -2.0) |`,
        `| product_card | clicked | 199 | 0.0 | 10.0 | 50.0 | 60.0 | 50.0 | 100.0 | 10.0 (10.0 to 10.0) | ${same} | -10.0 (-10.0 to -10.0) |`,
      ].join('\n'),
    ),
    report,
  );
  assert.match(report, /\| product_card \(200\) \| better \| 22\.0 \(22\.0 to 22\.0\) \| 40\.0 /);
  assert.match(report, /HR of the clicked items[\s\S]*\| product_card \(199\) \| better \| 60\.0 /);
});
