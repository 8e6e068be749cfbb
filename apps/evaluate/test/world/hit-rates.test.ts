import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bootstrap,
  depthsAtShares,
  hitRateDifference,
  hitRates,
  hitShares,
  KS,
  meanOverSeeds,
  type RequestHits,
  randomShares,
  ranksOf,
  SHARES,
} from '../../src/world/judging/hit-rates.ts';
import { oracleLists, popularList, topOf } from '../../src/world/lists/simple-lists.ts';
import { candidatesOf, Popularity } from '../../src/world/log/popularity.ts';
import { WorldLog } from '../../src/world/log/world-log.ts';
import { smallPlan } from './small-plan.ts';

test('shares agree with a brute force over sets', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 900 }), { maxLength: 1_200 }),
      fc.uniqueArray(fc.integer({ min: 0, max: 900 }), { minLength: 1, maxLength: 12 }),
      (list, wanted) => {
        const expected = KS.map(
          (k) => wanted.filter((w) => [...new Set(list)].slice(0, k).includes(w)).length / wanted.length,
        );
        assert.deepEqual(hitShares(ranksOf(list, wanted)), expected);
      },
    ),
    { seed: 3, numRuns: 200 },
  );
  assert.equal(hitShares([]), null);
  assert.deepEqual(ranksOf([7, 7, 3], [3, 7, 1]), [1, 0, -1]);
  assert.deepEqual(randomShares(200), [0.25, 0.5, 1]);
});

test('at equal shares of the candidates a list means the same in worlds of other sizes', () => {
  assert.deepEqual(depthsAtShares(500), [5, 10, 50]);
  assert.deepEqual(depthsAtShares(5_000), [50, 100, 500]);
  // no list is 2,000 long, and a hundredth of thirty items is none
  assert.equal(depthsAtShares(20_000), null);
  assert.equal(depthsAtShares(30), null);
  const ranks = [4, 9, 49, 50, -1];
  assert.deepEqual(hitShares(ranks, depthsAtShares(500)!), [0.2, 0.4, 0.6]);
  assert.deepEqual(
    hitShares(
      ranks.map((r) => (r < 0 ? r : 10 * r)),
      depthsAtShares(5_000)!,
    ),
    [0.2, 0.4, 0.6],
  );
  assert.deepEqual(randomShares(5_000, depthsAtShares(5_000)!), [...SHARES]);
});

test('the greatest scores come first, whatever the shortcut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 300 }),
      fc.integer({ min: 1, max: 40 }),
      (s, k) => {
        const expected = s
          .map((_, i) => i)
          .sort((a, b) => s[b]! - s[a]! || a - b)
          .slice(0, k);
        assert.deepEqual([...topOf(s, k)], expected);
      },
    ),
    { seed: 4, numRuns: 200 },
  );
});

test('the bootstrap interval has the width of the standard error, and pairs are compared as pairs', () => {
  const values = Array.from({ length: 900 }, (_, i) => (i % 3 === 0 ? 1 : 0));
  const { mean, low, high } = bootstrap(values);
  assert.equal(mean, 1 / 3);
  const se = Math.sqrt(((1 / 3) * (2 / 3)) / 900);
  assert.ok(Math.abs((high - low) / 2 - 1.96 * se) < 0.2 * se);
  // two lists that differ by a constant have a difference without any spread, however noisy they are
  const hits: RequestHits[] = values.map((v, request) => ({
    request,
    scenario: 's',
    viewed: { a: [v / 2 + 0.1, 0, 0], b: [v / 2, 0, 0] },
    clicked: request % 2 ? { a: [1, 1, 1], b: [0, 0, 0] } : {},
  }));
  const [difference] = hitRateDifference(hits, 'a', 'b', 'viewed');
  assert.ok(Math.abs(difference!.low - 0.1) < 1e-9 && Math.abs(difference!.high - 0.1) < 1e-9);
  assert.equal(hitRates(hits, 'a', 'clicked').requests, 450);
  assert.equal(hitRates(hits, 'a', 'viewed').requests, 900);
});

test('the oracle beats popularity, and both know only candidates of the request', () => {
  const plan = smallPlan();
  const log = new WorldLog(plan);
  while (log.numExposures < 6_000) log.nextRequest();
  const popularity = new Popularity(log);
  const sums = { oracle: 0, popularity: 0 };
  for (let i = 0; i < 300; i++) {
    const request = log.nextRequest();
    popularity.follow(request);
    const scenario = log.scenario(request);
    const [from, to] = log.exposuresOf(request);
    const viewed = log.exposures.item.rows().subarray(from, to);
    const oracle = oracleLists(log, request, 50);
    const popular = popularList(log, popularity, scenario, 50);
    const there = new Set(candidatesOf(log, scenario));
    for (const list of [oracle.viewed, oracle.clicked, popular]) {
      assert.ok(list.every((item) => there.has(item)));
      assert.equal(new Set(list).size, list.length);
    }
    sums.oracle += hitShares(ranksOf(oracle.viewed.subarray(0, 10), viewed))![0]!;
    sums.popularity += hitShares(ranksOf(popular.subarray(0, 10), viewed))![0]!;
  }
  assert.ok(sums.oracle > 1.3 * sums.popularity, JSON.stringify(sums));
});

test('over seeds a request counts with its mean, and one that a seed has not judged is left out', () => {
  const of = (request: number, viewed: number, clicked?: number): RequestHits => ({
    ...{ request, scenario: 'product_card' },
    viewed: { model: [viewed, 1, 1] },
    clicked: clicked === undefined ? {} : { model: [clicked, 0, 1] },
  });
  const mean = meanOverSeeds([
    [of(1, 0.25, 1), of(2, 0.5), of(3, 1)],
    [of(2, 1), of(1, 0.75, 0)],
  ]);
  assert.deepEqual(mean, [of(1, 0.5, 0.5), of(2, 0.75)]);
});

test('popularity counts what came before the request, as a recount does', () => {
  const log = new WorldLog(smallPlan());
  const popularity = new Popularity(log);
  let request = 0;
  for (let i = 0; i < 150; i++) {
    request = log.nextRequest();
    if (i % 7 === 0) popularity.follow(request);
  }
  popularity.follow(request);
  const nowMs = log.requests.timeMs.at(request);
  const counts = new Map<number, number>();
  for (let row = 0; row < log.numExposures; row++) {
    if (log.exposures.request.at(row) >= request) continue;
    const clickMs = log.exposures.clickMs.at(row);
    const item = log.exposures.item.at(row);
    counts.set(item, (counts.get(item) ?? 0) + 1 + (clickMs > 0 && clickMs < nowMs ? 10 : 0));
  }
  assert.ok(counts.size > 100);
  for (const [item, count] of counts) assert.equal(popularity.of(item), count);
});
