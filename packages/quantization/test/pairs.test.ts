import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hashFraction, SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  capPairs,
  clickBaskets,
  type Interaction,
  Interactions,
  type ItemFacts,
  type ItemPair,
  nearestItems,
  neighbourPairs,
  swingPairs,
  watchingPairs,
} from '../src/index.ts';
import { clusters } from './reference.ts';

const sorted = (pairs: readonly ItemPair[]) => pairs.toSorted((x, y) => x.a - y.a || x.b - y.b);
const close = (got: readonly ItemPair[], expected: readonly ItemPair[]): void => {
  assert.deepEqual(
    sorted(got).map(({ a, b }) => [a, b]),
    sorted(expected).map(({ a, b }) => [a, b]),
  );
  for (const [i, { score }] of sorted(got).entries())
    assert.ok(Math.abs(score - sorted(expected)[i]!.score) < 1e-6 * Math.max(1, score));
};

/** The formula as it stands, over all pairs of items and of users. */
function slowSwing(baskets: readonly number[][], numItems: number): ItemPair[] {
  const [alpha1, alpha2, beta] = [15, 0, 0.3];
  const weight = (u: number) => 1 / (baskets[u]!.length + alpha1) ** beta;
  const pairs: ItemPair[] = [];
  for (let a = 0; a < numItems; a++)
    for (let b = a + 1; b < numItems; b++) {
      let score = 0;
      for (let u = 0; u < baskets.length; u++)
        for (let v = u + 1; v < baskets.length; v++) {
          if (![u, v].every((w) => baskets[w]!.includes(a) && baskets[w]!.includes(b))) continue;
          const common = baskets[u]!.filter((item) => baskets[v]!.includes(item)).length;
          score += (weight(u) * weight(v)) / (alpha2 + common);
        }
      if (score > 0) pairs.push({ a, b, score });
    }
  return pairs;
}

describe('swingPairs', () => {
  test('is the formula', () => {
    const basket = fc.uniqueArray(fc.nat(11), { minLength: 2, maxLength: 8 });
    fc.assert(
      fc.property(fc.array(basket, { maxLength: 9 }), (baskets) => {
        close(
          swingPairs(
            baskets.map((items) => Int32Array.from(items)),
            12,
          ),
          slowSwing(baskets, 12),
        );
      }),
      { seed: 21, numRuns: 150 },
    );
  });

  test('keeps the best partners of each item', () => {
    const baskets = [
      [0, 1, 2],
      [0, 1, 3],
      [0, 1, 2],
      [4, 5],
      [4, 5],
    ].map((items) => Int32Array.from(items));
    const pairs = swingPairs(baskets, 6, { maxPerItem: 1 });
    assert.deepEqual(
      sorted(pairs).map(({ a, b }) => [a, b]),
      [
        [0, 1],
        [0, 2],
        [4, 5],
      ],
    );
  });
});

describe('nearestItems', () => {
  test('are those of a plain search', async () => {
    const vectors = clusters(new SeededRandom(3), { numVectors: 400, dim: 9, numClusters: 20, spread: 0.5 });
    const row = (i: number) => [...vectors.data.subarray(i * 9, i * 9 + 9)];
    const unit = (v: number[]) => v.map((x) => x / Math.hypot(...v));
    const rows = Array.from({ length: 400 }, (_, i) => unit(row(i)));
    const { indices, similarities } = await nearestItems(vectors, 5);
    for (let i = 0; i < 400; i++) {
      const slow = rows
        .map((other, j) => ({ j, similarity: other.reduce((sum, x, d) => sum + x * rows[i]![d]!, 0) }))
        .filter(({ j }) => j !== i)
        .sort((x, y) => y.similarity - x.similarity);
      for (let n = 0; n < 5; n++) {
        assert.ok(Math.abs(similarities[i * 5 + n]! - slow[n]!.similarity) < 1e-5);
        assert.notEqual(indices[i * 5 + n], i);
      }
    }
  });

  test('of few items are all others, and of more than a block those of any block', async () => {
    const few = clusters(new SeededRandom(1), { numVectors: 3, dim: 4, numClusters: 3, spread: 0.1 });
    const found = await nearestItems(few, 5);
    assert.deepEqual([...found.indices.slice(0, 5)].sort(), [-1, -1, -1, 1, 2]);
    assert.equal(neighbourPairs(found, -2).length, 3);
    const dim = 2;
    const angles = Array.from({ length: 4_200 }, (_, i) => (2 * Math.PI * i) / 4_200);
    const data = Float32Array.from(angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)]));
    const { indices } = await nearestItems({ data, numVectors: 4_200, dim }, 2);
    for (const i of [0, 4_095, 4_096, 4_199])
      assert.deepEqual(
        [...indices.slice(i * 2, i * 2 + 2)].sort((x, y) => x - y),
        [(i + 4_199) % 4_200, (i + 1) % 4_200].sort((x, y) => x - y),
      );
  });
});

test('capPairs keeps the best pairs, and no item more often than allowed', () => {
  const pair = fc.record({ a: fc.nat(4), b: fc.integer({ min: 5, max: 9 }), score: fc.nat(20) });
  fc.assert(
    fc.property(fc.array(pair), fc.integer({ min: 1, max: 4 }), (pairs, max) => {
      const kept = capPairs(pairs, max);
      const uses = (item: number) => kept.filter(({ a, b }) => a === item || b === item).length;
      for (let item = 0; item < 10; item++) assert.ok(uses(item) <= max);
      // Whatever was left out had an item that better or equal pairs have used up.
      const left = [...pairs];
      for (const pair of kept) left.splice(left.indexOf(pair), 1);
      for (const { a, b, score } of left)
        assert.ok(
          [a, b].some(
            (item) => kept.filter((p) => p.score >= score && (p.a === item || p.b === item)).length === max,
          ),
        );
    }),
    { seed: 22 },
  );
});

const view = (itemId: string, timeMs: number, watchMs = 90_000): Interaction => ({
  itemId,
  timeMs,
  kind: 'view',
  watchMs,
});
const click = (itemId: string, timeMs: number): Interaction => ({
  itemId,
  timeMs,
  kind: 'click',
  watchMs: 0,
});
const ITEMS: Record<string, ItemFacts> = {
  p1: { index: 0, kind: 'product', category: 'cups' },
  p2: { index: 1, kind: 'product', category: 'cups' },
  v1: { index: 2, kind: 'video', category: 'Kitchen' },
  v2: { index: 3, kind: 'video', category: 'Travel' },
  joke: { index: 4, kind: 'video', category: 'comedy' },
};
const factsOf = (itemId: string): ItemFacts | null => ITEMS[itemId] ?? null;
const MINUTE = 60_000;

describe('watchingPairs', () => {
  const watched = (users: Interaction[][], options = {}) =>
    watchingPairs(users, factsOf, (text) => hashFraction(text), options);

  test('a clicked product with the newest video watched long enough one to five minutes before', () => {
    const cases: [Interaction[], number[][]][] = [
      [[view('v1', 0), click('p1', 2 * MINUTE)], [[2, 0]]],
      [[view('v1', 0), view('v2', 1), click('p1', 2 * MINUTE)], [[3, 0]]],
      [[view('v1', 0, MINUTE), click('p1', 2 * MINUTE)], []],
      [[view('v1', 0), click('p1', MINUTE - 1)], []],
      [[view('v1', 0), click('p1', 5 * MINUTE)], [[2, 0]]],
      [[view('v1', 0), click('p1', 5 * MINUTE + 1)], []],
      [[view('p2', 0), click('p1', 2 * MINUTE)], []],
      [[view('v1', 0), click('v2', 2 * MINUTE)], []],
      [[view('v1', 0), click('unknown', 2 * MINUTE)], []],
    ];
    for (const [events, expected] of cases)
      assert.deepEqual(
        watched([events]).pairs.map(({ a, b }) => [a, b]),
        expected,
        JSON.stringify(events),
      );
  });

  test('counts what each filter leaves', () => {
    const users = Array.from({ length: 6 }, (_, u) => [
      view('v1', 0),
      click('p1', 2 * MINUTE + u),
      click('p2', 2 * MINUTE + 10 + u),
      view('joke', 10 * MINUTE),
      click('p1', 12 * MINUTE),
      view('v2', 20 * MINUTE, MINUTE),
      click('p2', 30 * MINUTE),
      view('p1', 31 * MINUTE),
    ]);
    const { pairs, filters } = watched(users, { maxPerUser: 1, maxPerProduct: 2 });
    assert.deepEqual(filters.map(({ before, after }) => [before, after]).slice(0, 4), [
      [18, 12],
      [24, 18],
      [18, 12],
      [12, 6],
    ]);
    const [, , , , products, equal] = filters;
    assert.equal(products!.before, 6);
    assert.ok(products!.after >= 2 && products!.after <= 4);
    assert.equal(
      pairs.reduce((sum, { score }) => sum + score, 0),
      products!.after,
    );
    assert.equal(equal!.after, pairs.length);
  });
});

describe('Interactions', () => {
  const hash = (text: string) => hashFraction(text);
  test('the order of the log does not matter, and the newest stay', () => {
    const event = fc.record({
      user: fc.constantFrom('a', 'b', 'c'),
      itemId: fc.constantFrom('x', 'y', 'z'),
      timeMs: fc.nat(50),
    });
    const kept = (events: { user: string; itemId: string; timeMs: number }[]) => {
      const interactions = new Interactions({ maxUsers: 10, maxPerUser: 3 }, hash);
      for (const { user, itemId, timeMs } of events) interactions.add(user, click(itemId, timeMs));
      return [...interactions.users()].map((user) => user.map(({ itemId, timeMs }) => [timeMs, itemId]));
    };
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const expected = ['a', 'b', 'c']
          .map((user) =>
            events
              .filter((e) => e.user === user)
              .map(({ itemId, timeMs }) => [timeMs, itemId] as const)
              .sort((x, y) => x[0] - y[0] || (x[1] < y[1] ? -1 : 1))
              .slice(-3),
          )
          .filter((user) => user.length > 0);
        assert.deepEqual(kept(events), expected);
        assert.deepEqual(kept(events.toReversed()), expected);
      }),
      { seed: 23 },
    );
  });

  test('holds no more users than allowed, by their ids alone, and says how many it left out', () => {
    const interactions = new Interactions({ maxUsers: 100, maxPerUser: 5 }, hash);
    for (let u = 0; u < 1_000; u++) interactions.add(`user${u}`, click('x', u));
    assert.ok(interactions.numUsers <= 100 && interactions.numUsers > 20);
    const { userShare, eventsLeftOut } = interactions.coverage;
    assert.equal(interactions.numUsers + eventsLeftOut, 1_000);
    assert.ok(userShare <= 1 / 8);
  });

  test('baskets hold each clicked item once; users of one item have none', () => {
    const users = [[click('p1', 1), click('p1', 2), click('p2', 3), view('v1', 4)], [click('p1', 1)]];
    const baskets = clickBaskets(users, (itemId) => factsOf(itemId)?.index);
    assert.deepEqual(
      baskets.map((basket) => [...basket]),
      [[0, 1]],
    );
  });
});
