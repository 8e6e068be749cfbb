import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ItemFeatures } from '@onemall/contracts';
import fc from 'fast-check';
import { NUM_DENSE, NUM_IDS, RankerRequest, rankerFeatures, rankerItem } from '../src/index.ts';
import { referenceFeatures } from './reference-ranker-features.ts';

fc.configureGlobal({ seed: 31 });
const itemId = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const category = fc.constantFrom('', 'shoes', 'hats', 'bags');
const events = fc.array(
  fc.record({ itemId, eventTimeMs: fc.integer({ min: 0, max: 2_000_000 }), category }),
  { maxLength: 20 },
);
const request = fc.record({
  scenario: fc.constantFrom('product_card', 'live_stream'),
  requestTimeMs: fc.integer({ min: 1, max: 2_000_000 }),
  history: fc.record({ exposures: events, clicks: events, buys: events }),
});
const item: fc.Arbitrary<ItemFeatures> = fc.record({
  category,
  tags: fc.array(fc.constantFrom('red', 'new', ''), { maxLength: 6 }),
  priceCents: fc.integer({ min: 0, max: 1_000_000 }),
  sellerId: fc.constantFrom('', 's1', 's2'),
  sellingItemIds: fc.array(itemId, { maxLength: 6 }),
  validFromMs: fc.integer({ min: 0, max: 3_000_000 }),
});

test('features of many candidates of one request are, byte by byte, those of their definitions', () => {
  fc.assert(
    fc.property(request, fc.array(fc.tuple(itemId, item), { minLength: 1, maxLength: 8 }), (asked, items) => {
      const rows = new RankerRequest(asked);
      const dense = new Float32Array(items.length * NUM_DENSE).fill(Number.NaN);
      const ids = new Int32Array(items.length * NUM_IDS).fill(-7);
      for (const [row, [id, features]] of items.entries())
        rows.write(id, rankerItem(id, features), dense, ids, row);
      for (const [row, [id, features]] of items.entries()) {
        const expected = referenceFeatures(asked, id, features);
        assert.deepEqual(dense.subarray(row * NUM_DENSE, (row + 1) * NUM_DENSE), expected.dense);
        assert.deepEqual(ids.subarray(row * NUM_IDS, (row + 1) * NUM_IDS), expected.ids);
        assert.deepEqual(rankerFeatures(asked, id, features), expected);
      }
    }),
    { numRuns: 400 },
  );
});
