import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { HistoryEvent, ItemFeatures, UserHistory } from '@onemall/contracts';
import fc from 'fast-check';
import {
  ageBucket,
  DENSE_FEATURES,
  hashFeature,
  ID_FEATURES,
  itemTensors,
  MAX_SELLING,
  MAX_TAGS,
  NUM_DENSE,
  NUM_IDS,
  priceBucket,
  rankerFeatures,
  requestTensors,
  type SidCodes,
  sidLayout,
  writeSidRows,
} from '../src/index.ts';

const layout = sidLayout(['product_card', 'short_video', 'live_stream'], {
  product_card: [16, 16, 32],
  short_video: [32, 16, 16],
  live_stream: [16, 8, 8],
});
const T = 1_700_000_000_000;
const event = (itemId: string, ageMs: number, category = 'shoes'): HistoryEvent => ({
  itemId,
  eventTimeMs: T - ageMs,
  category,
});
const none: UserHistory = { exposures: [], clicks: [], buys: [] };
const item: ItemFeatures = {
  category: 'shoes',
  tags: ['red', 'leather'],
  priceCents: 4999,
  sellerId: 'seller-1',
  sellingItemIds: [],
  validFromMs: T - 3_600_000,
};
const dense = (features: { dense: Float32Array }, name: string) =>
  features.dense[DENSE_FEATURES.indexOf(name)]!;

describe('SID layout', () => {
  test('puts the scenarios one after the other, without overlap', () => {
    assert.deepEqual(layout.rows, [64, 40, 56]);
    const seen = new Set<number>();
    for (const scenario of layout.scenarios)
      for (let c1 = 0; c1 < layout.numCodes[scenario]![0]; c1++) {
        const rows = new Int32Array(3);
        writeSidRows(layout, { scenario, c1, c2: 0, c3: 0 }, rows, 0);
        assert.ok(!seen.has(rows[0]!));
        seen.add(rows[0]!);
      }
    assert.equal(seen.size, 64);
  });
  test('refuses codes, scenarios and counts that do not fit', () => {
    const out = new Int32Array(3);
    const sid = { scenario: 'live_stream', c1: 0, c2: 8, c3: 0 };
    assert.throws(
      () => writeSidRows(layout, sid, out, 0),
      /Code 8 of level 2 in live_stream is outside 0..7/,
    );
    assert.throws(() => writeSidRows(layout, { ...sid, scenario: 'x' }, out, 0), /unknown scenario x/);
    assert.throws(() => sidLayout(['a'], {}), /numCodes of scenario a must be three whole numbers/);
    assert.throws(() => sidLayout([], {}), /at least one scenario/);
    assert.throws(() => sidLayout(['a', 'a'], { a: [1, 1, 1] }), /listed twice/);
  });
});

describe('request tensors', () => {
  const sids: Record<string, SidCodes> = {
    a: { scenario: 'product_card', c1: 1, c2: 2, c3: 3 },
    v: { scenario: 'short_video', c1: 4, c2: 5, c3: 6 },
  };
  const lookup = (id: string) => sids[id] ?? null;

  test('hold the newest events before the request, leave out items without a SID, and pad', () => {
    const history: UserHistory = {
      exposures: [
        event('a', -5),
        event('a', 0),
        event('unknown', 1000),
        event('v', 3000),
        event('a', 60_000),
      ],
      clicks: [event('a', 1), event('v', 2), event('a', 3), event('v', 4)],
      buys: [],
    };
    const { behaviours } = requestTensors({ scenario: 'product_card', requestTimeMs: T, history }, lookup, {
      historyLength: 3,
      layout,
    });
    assert.deepEqual(Array.from(behaviours.exposure.codes), [20, 21, 38, 1, 2, 3, -1, -1, -1]);
    assert.deepEqual(Array.from(behaviours.exposure.ages), [2, 5, 0]);
    assert.deepEqual(Array.from(behaviours.exposure.scenarios), [1, 0, 0]);
    assert.deepEqual(Array.from(behaviours.click.codes), [1, 2, 3, 20, 21, 38, 1, 2, 3]);
    assert.deepEqual(Array.from(behaviours.buy.codes), new Array(9).fill(-1));
  });
  test('refuse an unknown scenario and a SID of another version', () => {
    const options = { historyLength: 2, layout };
    assert.throws(
      () => requestTensors({ scenario: 'x', requestTimeMs: T, history: none }, lookup, options),
      /scenario x/,
    );
    const wrong = () => ({ scenario: 'live_stream', c1: 999, c2: 0, c3: 0 });
    const history = { ...none, clicks: [event('a', 5)] };
    assert.throws(
      () => requestTensors({ scenario: 'live_stream', requestTimeMs: T, history }, wrong, options),
      /Code 999/,
    );
  });
  test('age buckets double', () => {
    assert.deepEqual([0, 999, 1000, 3000, 7000, 1e15].map(ageBucket), [0, 0, 1, 2, 3, 31]);
  });
});

describe('item tensors', () => {
  const sid: SidCodes = { scenario: 'product_card', c1: 1, c2: 2, c3: 3 };
  test('hold hashes, the own SID and the products on sale', () => {
    const tags = ['1', '2', '3', '4', '5', '6'];
    const { hashes, codes } = itemTensors(
      { scenario: 'product_card', features: { ...item, tags }, sid },
      () => null,
      { layout },
    );
    assert.equal(hashes.length, 3 + MAX_TAGS);
    assert.ok(hashes.every((h) => h >= 0));
    assert.deepEqual(Array.from(codes.subarray(0, 3)), [1, 2, 3]);
    assert.ok(codes.subarray(3).every((c) => c === -1));
  });
  test('of a live room leave out its own SID and hold what it sells', () => {
    const sellingItemIds = ['p', 'without', 'p', 'p', 'p', 'p'];
    const { hashes, codes } = itemTensors(
      {
        scenario: 'live_stream',
        features: { ...item, tags: [], sellingItemIds },
        sid: { ...sid, scenario: 'live_stream' },
      },
      (id) => (id === 'p' ? sid : null),
      { layout },
    );
    assert.deepEqual(Array.from(codes.subarray(0, 9)), [-1, -1, -1, 1, 2, 3, -1, -1, -1]);
    assert.equal(codes.length, (1 + MAX_SELLING) * 3);
    assert.ok(hashes.subarray(3).every((h) => h === -1));
  });
});

describe('ranker features', () => {
  const history: UserHistory = {
    exposures: [event('x', 1000), event('y', 2000, 'bags'), event('x', 60_000), event('z', 70_000)],
    clicks: [event('x', 900), event('y', 5000, 'bags')],
    buys: [event('z', 100_000)],
  };
  const request = { scenario: 'product_card', requestTimeMs: T, history };

  test('count matches of the candidate', () => {
    const features = rankerFeatures(request, 'x', item);
    assert.equal(features.dense.length, NUM_DENSE);
    assert.equal(features.ids.length, NUM_IDS);
    assert.equal(new Set(DENSE_FEATURES).size, NUM_DENSE);
    const near = (name: string, expected: number) =>
      assert.ok(Math.abs(dense(features, name) - expected) < 1e-6, `${name}: ${dense(features, name)}`);
    near('exposure.count', Math.log1p(4));
    near('exposure.sameCategory', Math.log1p(3));
    near('exposure.sameCategoryShare', 0.75);
    near('exposure.sameItem', Math.log1p(2));
    near('click.sameItem', Math.log1p(1));
    near('buy.sameItem', 0);
    near('exposure.recency', 1 - 1 / 32);
    near('buy.sameItemRecency', 0);
    near('buy.sameCategoryRecency', 1 - Math.log2(101) / 32);
    near('clickRate', 2.5 / 9);
    near('categoryBuyRate', 1.5 / 6);
    near('price', Math.log2(5000) / 32);
    near('tags', 0.5);
    assert.ok(features.ids.every((id) => id >= 0));
  });
  test('a room counts clicks on what it sells', () => {
    const room = { ...item, sellingItemIds: ['x', 'z'] };
    const features = rankerFeatures({ ...request, scenario: 'live_stream' }, 'room', room);
    assert.ok(Math.abs(dense(features, 'sellingClicks') - Math.log1p(1)) < 1e-6);
    assert.ok(Math.abs(dense(features, 'sellingBuys') - Math.log1p(1)) < 1e-6);
    assert.ok(Math.abs(dense(features, 'selling') - Math.log1p(2)) < 1e-6);
  });
  test('nothing at or after the request is seen', () => {
    const future = [event('x', 0), event('x', -50)];
    const planted: UserHistory = {
      exposures: [...future, ...history.exposures],
      clicks: [...future, ...history.clicks],
      buys: [...future, ...history.buys],
    };
    assert.deepEqual(
      rankerFeatures({ ...request, history: planted }, 'x', item),
      rankerFeatures(request, 'x', item),
    );
  });
  test('the logged target gives the same bytes when it comes back as a candidate through the wire', () => {
    const events = fc.array(
      fc.record({
        itemId: fc.constantFrom('x', 'y', 'z'),
        eventTimeMs: fc.integer({ min: T - 1e9, max: T + 1000 }),
        category: fc.constantFrom('shoes', 'bags', ''),
      }),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(events, events, events, fc.constantFrom('x', 'w'), (exposures, clicks, buys, target) => {
        const sample = { scenario: 'short_video', requestTimeMs: T, history: { exposures, clicks, buys } };
        const logged = rankerFeatures(sample, target, item);
        const candidate = JSON.parse(JSON.stringify({ sample, item }));
        const scored = rankerFeatures(candidate.sample, target, candidate.item);
        const bytes = (a: Float32Array | Int32Array) => Buffer.from(a.buffer, a.byteOffset, a.byteLength);
        assert.ok(bytes(scored.dense).equals(bytes(logged.dense)));
        assert.ok(bytes(scored.ids).equals(bytes(logged.ids)));
        assert.ok(logged.dense.every((v) => Number.isFinite(v) && Math.abs(v) <= 8));
      }),
      { seed: 1, numRuns: 100 },
    );
  });
  test('ids differ by field, and unknown categories match nothing', () => {
    assert.notEqual(hashFeature('item', 'a'), hashFeature('category', 'a'));
    assert.notEqual(hashFeature('a', 'bc'), hashFeature('ab', 'c'));
    assert.equal(ID_FEATURES.length, NUM_IDS);
    assert.equal(priceBucket(0), 0);
    assert.equal(priceBucket(9999), 26);
    const unknown = { ...item, category: '' };
    const blank = { ...none, clicks: [event('q', 10, '')] };
    const features = rankerFeatures({ ...request, history: blank }, 'x', unknown);
    assert.equal(dense(features, 'click.sameCategory'), 0);
  });
});
