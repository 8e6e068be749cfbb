import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Candidate, Item, ItemFeatures, LiveSid, Rollout } from '@onemall/contracts';
import { NUM_DENSE, NUM_IDS, rankerFeatures, rankerItem } from '@onemall/features';
import { fuseReward, groupAdvantages, type RankerScores } from '@onemall/learning';
import fc from 'fast-check';
import { checkRollout } from '../src/stages/check-rollout.ts';
import { joinRows, splitByRows } from '../src/stages/join-rows.ts';
import { keepDistinct } from '../src/stages/keep-distinct.ts';
import { rankerRows, scoreGroup } from '../src/stages/score-candidates.ts';
import { ItemFacts } from '../src/state/item-facts.ts';

fc.configureGlobal({ seed: 21 });
const WEIGHTS = { alpha: 1, beta: 30, gamma: 1 };
const RANKER = { rankerVersion: 'r1', egpmScale: { product_card: 2 } };
const OPTIONS = { weights: WEIGHTS, maxAdvantage: 5, createdMs: 5_000 };

const candidate = (c3: number, itemId: string | null, logProbs = [-1, -1, -1]): Candidate => ({
  c1: 0,
  c2: 0,
  c3,
  tokenLogProbs: logProbs,
  itemId,
});
const rolloutOf = (candidates: Candidate[], more: Partial<Rollout> = {}): Rollout => ({
  requestId: 'req',
  userId: 'u',
  scenario: 'product_card',
  requestTimeMs: 1_000_000,
  policyVersion: '3-abc',
  codebookVersion: 1,
  history: {
    exposures: [{ itemId: 'a', eventTimeMs: 900_000, category: 'shoes' }],
    clicks: [{ itemId: 'a', eventTimeMs: 910_000, category: 'shoes' }],
    buys: [],
  },
  candidates,
  createdMs: 4_000,
  ...more,
});
const features = (more: Partial<ItemFeatures> = {}): ItemFeatures => ({
  category: 'shoes',
  tags: ['red'],
  priceCents: 1999,
  sellerId: 's1',
  sellingItemIds: [],
  validFromMs: 0,
  ...more,
});
const scoresOf = (...rows: [pCtr: number, pCtcvr: number, value: number][]): RankerScores => ({
  pCtr: Float32Array.from(rows, (r) => r[0]),
  pCtcvr: Float32Array.from(rows, (r) => r[1]),
  buyValueCents: Float32Array.from(rows, (r) => r[2]),
});
const knows =
  (...ids: string[]) =>
  (itemId: string) =>
    ids.includes(itemId) ? rankerItem(itemId, features()) : null;

test('equation 8: r = alpha pCtr + beta pCtcvr + gamma pEgpm, pEgpm = pCtcvr x value / S', () => {
  const { pEgpm, reward } = fuseReward({ pCtr: 0.1, pCtcvr: 0.01, buyValueCents: 500 }, WEIGHTS, 50);
  assert.ok(Math.abs(pEgpm - 0.1) < 1e-12);
  assert.ok(Math.abs(reward - (0.1 + 0.3 + 0.1)) < 1e-12);
});

test('advantages: A = (r - mean) / std, clamped; a group of equal rewards has none', () => {
  assert.deepEqual(groupAdvantages([1, 3], 5), { mean: 2, std: 1, advantages: [-1, 1] });
  assert.equal(groupAdvantages([0.25, 0.25, 0.25], 5), null);
  assert.equal(groupAdvantages([1, 1 + 1e-7], 5), null);
  assert.equal(groupAdvantages([], 5), null);
  assert.equal(groupAdvantages([1, Number.NaN], 5), null);
  const outlier = groupAdvantages([...Array.from({ length: 99 }, () => 0), 1], 5)!;
  assert.equal(outlier.advantages.at(-1), 5, '9.95 before the clamp');
});

test('advantages have mean 0 and standard deviation 1 where nothing is clamped, and keep the order', () => {
  const rewards = fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 2, maxLength: 24 });
  fc.assert(
    fc.property(rewards, (r) => {
      const group = groupAdvantages(r, 5);
      if (!group) return assert.ok(Math.max(...r) - Math.min(...r) < 1e-4);
      const { advantages } = group;
      const mean = advantages.reduce((s, a) => s + a, 0) / r.length;
      const variance = advantages.reduce((s, a) => s + (a - mean) ** 2, 0) / r.length;
      assert.ok(Math.abs(mean) < 1e-6 && Math.abs(variance - 1) < 1e-6);
      for (const [i, x] of r.entries())
        for (const [j, y] of r.entries()) if (x < y) assert.ok(advantages[i]! <= advantages[j]!);
    }),
  );
});

test('of several SIDs of one item the most probable stays with its rank; SIDs without item all stay', () => {
  const kept = keepDistinct([
    candidate(0, 'a', [-3, -3, -3]),
    candidate(1, null),
    candidate(2, 'a', [-1, -1, -1]),
    candidate(3, 'b'),
    candidate(4, null),
  ]);
  assert.deepEqual(
    kept.map(({ c3, rank, itemId }) => [c3, rank, itemId]),
    [
      [1, 1, null],
      [2, 2, 'a'],
      [3, 3, 'b'],
      [4, 4, null],
    ],
  );
});

test('a candidate that is the logged target has the very bytes that training computes', () => {
  const rollout = rolloutOf([candidate(0, 'x'), candidate(1, 'a')]);
  const rows = rankerRows(rollout, knows('x', 'a'));
  const trained = rankerFeatures(rollout, 'a', features());
  assert.equal(rows.numRows, 2);
  assert.deepEqual(rows.dense.subarray(NUM_DENSE), trained.dense);
  assert.deepEqual(rows.ids.subarray(NUM_IDS), trained.ids);
});

test('scoreGroup follows the formulas, gives a SID without an item the lowest reward and counts it', () => {
  const rollout = rolloutOf([
    candidate(0, 'a'),
    candidate(1, null),
    candidate(2, 'unknown'),
    candidate(3, 'b'),
    candidate(4, 'a', [-9, -9, -9]),
  ]);
  const rows = rankerRows(rollout, knows('a', 'b'));
  assert.deepEqual(rows.rowOf, [0, -1, -1, 1]);
  const scores = scoresOf([9, 9, 9], [0.5, 0.1, 4], [0.25, 0.05, 2]);
  const result = scoreGroup(rows, scores, 1, RANKER, OPTIONS);
  assert.ok('batch' in result);
  assert.equal(result.withoutItem, 2);
  assert.equal(result.duplicates, 1);
  const { batch } = result;
  const high = 0.5 + 30 * 0.1 + (0.1 * 4) / 2;
  const low = 0.25 + 30 * 0.05 + (0.05 * 2) / 2;
  const mean = (high + 3 * low) / 4;
  const std = Math.sqrt(((high - mean) ** 2 + 3 * (low - mean) ** 2) / 4);
  const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-6, `${a} and ${b}`);
  close(batch.rewardMean, mean);
  close(batch.rewardStd, std);
  const [a, none, unknown, b] = batch.candidates;
  close(a!.reward, high);
  close(a!.advantage, (high - mean) / std);
  close(a!.pEgpm, 0.2);
  for (const lowest of [none!, unknown!]) {
    close(lowest.reward, low);
    close(lowest.advantage, (low - mean) / std);
    assert.equal(lowest.pCtr, 0);
  }
  close(b!.reward, low);
  assert.deepEqual(
    [batch.requestId, batch.policyVersion, batch.rankerVersion, batch.rolloutCreatedMs, batch.createdMs],
    ['req', '3-abc', 'r1', 4_000, 5_000],
  );
  assert.deepEqual(
    batch.candidates.map((c) => c.rank),
    [0, 1, 2, 3],
  );
});

test('groups that can teach nothing are skipped with their reason', () => {
  const skip = (rollout: Rollout, scores: RankerScores) => {
    const result = scoreGroup(rankerRows(rollout, knows('a', 'b')), scores, 0, RANKER, OPTIONS);
    return 'skipped' in result ? result.skipped : 'scored';
  };
  const two = [candidate(0, 'a'), candidate(1, 'b')];
  const good = scoresOf([0.1, 0.01, 100], [0.2, 0.02, 100]);
  assert.equal(skip(rolloutOf(two), good), 'scored');
  assert.equal(skip(rolloutOf([]), good), 'empty');
  assert.equal(skip(rolloutOf([candidate(0, null)]), good), 'no_items');
  assert.equal(skip(rolloutOf(two, { scenario: 'live_stream' }), good), 'unknown_scenario');
  assert.equal(skip(rolloutOf(two), scoresOf([0.1, 0.01, 100], [0.1, 0.01, 100])), 'equal_rewards');
  assert.equal(skip(rolloutOf(two), scoresOf([Number.NaN, 0.01, 100], [0.1, 0.01, 100])), 'not_finite');
});

test('rows of several groups go to the ranker in few calls and find their way back', () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 20 });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 40 }), (numRows, maxRows) => {
      const groups = numRows.map((n, g) => ({
        numRows: n,
        dense: new Float32Array(n * NUM_DENSE).fill(g),
        ids: new Int32Array(n * NUM_IDS).fill(g),
      }));
      const batches = splitByRows(groups, maxRows);
      assert.deepEqual(batches.flat(), groups);
      for (const batch of batches) {
        const joined = joinRows(batch);
        assert.ok(joined.numRows <= maxRows || batch.length === 1);
        for (const [i, group] of batch.entries()) {
          const from = joined.starts[i]! * NUM_DENSE;
          assert.deepEqual(joined.dense.subarray(from, from + group.dense.length), group.dense);
        }
      }
    }),
  );
});

test('features are those valid at the request; a younger item has its newest ones, one that is gone has none', () => {
  const facts = new ItemFacts();
  const item = (priceCents: number, validFromMs: number): Item => ({
    itemId: 'a',
    scenario: 'product_card',
    validFromMs,
    title: 'a',
    category: 'shoes',
    tags: [],
    priceCents,
    sellerId: 's',
    productId: null,
    contentVideo: false,
    embedding: null,
  });
  const room = (sellingItemIds: string[], validFromMs: number): LiveSid => ({
    liveId: 'a',
    sid: null,
    validFromMs,
    reason: 'PRODUCT_CHANGE',
    sellingItemIds,
    explainingItemId: null,
    sourcePartition: 0,
    sourceOffset: 0,
    createdMs: 0,
  });
  facts.putItem('a', item(100, 10), 10);
  facts.putItem('a', item(200, 20), 20);
  facts.putRoom('a:1', room(['p'], 0), 0);
  facts.putRoom('a:2', room(['p', 'q'], 15), 15);
  assert.equal(facts.asOf('a', 12)!.priceCents, 100);
  assert.equal(facts.asOf('a', 25)!.priceCents, 200);
  assert.equal(facts.asOf('a', 5)!.priceCents, 200, 'it is retrieved now, whenever the request was');
  assert.deepEqual(facts.asOf('a', 12)!.sellingItemIds, ['p']);
  assert.deepEqual(facts.asOf('a', 15)!.sellingItemIds, ['p', 'q']);
  // the room has closed: a request of before still finds what it sold, as it does in training
  facts.putRoom('a:1', null, 28);
  facts.putRoom('a:2', null, 28);
  const openRoom = features({
    priceCents: 200,
    sellerId: 's',
    tags: [],
    validFromMs: 20,
    sellingItemIds: ['p', 'q'],
  });
  assert.deepEqual(facts.asOf('a', 27), rankerItem('a', openRoom));
  assert.deepEqual(facts.asOf('a', 28)!.sellingItemIds, []);
  facts.forgetBefore(27);
  assert.deepEqual(facts.asOf('a', 27)!.sellingItemIds, ['p', 'q']);
  facts.putItem('a', null, 30);
  assert.equal(facts.asOf('a', 30), null);
  assert.equal(facts.asOf('never', 1), null);
});

test('a rollout under another key, without id or with missing log-probabilities is bad input', () => {
  const good = rolloutOf([candidate(0, 'a')]);
  checkRollout('req', good);
  assert.throws(() => checkRollout('other', good), { reason: 'KEY_MISMATCH' });
  assert.throws(() => checkRollout('', rolloutOf([], { requestId: '' })), { reason: 'EMPTY_ID' });
  assert.throws(() => checkRollout('req', rolloutOf([candidate(0, 'a', [-1])])), { reason: 'NOT_A_NUMBER' });
  assert.throws(() => checkRollout('req', rolloutOf([candidate(-1, 'a')])), { reason: 'NEGATIVE_VALUE' });
});
