import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { placesOf, rankCorrelation } from '../src/rank-correlation.ts';

test('equal values share the mean of their places', () => {
  assert.deepEqual([...placesOf([5, 1, 5, 0])], [3.5, 2, 3.5, 1]);
});

test('without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)), whatever the scale of the values', () => {
  fc.assert(
    fc.property(fc.shuffledSubarray([...Array(12).keys()], { minLength: 12 }), (b) => {
      const squares = b.reduce((sum, place, i) => sum + (place - i) ** 2, 0);
      const expected = 1 - (6 * squares) / (12 * 143);
      assert.ok(Math.abs(rankCorrelation([...b.keys()].map(Math.exp), b)! - expected) < 1e-12);
    }),
    { seed: 7 },
  );
});

test('a judge that tells nothing apart has no order to compare', () => {
  assert.equal(rankCorrelation([1, 1, 1], [1, 2, 3]), null);
  assert.equal(rankCorrelation([1], [2]), null);
});
