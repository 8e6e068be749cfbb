import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Codebook } from '@onemall/contracts';
import { USUAL_LIMITS } from '@onemall/quantization';
import { isHeldBack } from '@onemall/service-kit';
import fc from 'fast-check';
import { jobShape } from '../src/config.ts';
import { groupRequests } from '../src/stages/group-requests.ts';
import { HitRates, hitShare } from '../src/stages/hit-rates.ts';
import { planRetirement } from '../src/stages/plan-retirement.ts';
import { item, sample } from './samples.ts';

describe('hitShare', () => {
  test('is the share of the wanted items among the first k different ones', () => {
    const id = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
    fc.assert(
      fc.property(
        fc.array(id),
        fc.array(id, { minLength: 1 }),
        fc.integer({ min: 1, max: 6 }),
        (list, wanted, k) => {
          const first = [...new Set(list)].slice(0, k);
          const set = new Set(wanted);
          assert.equal(hitShare(list, set, k), [...set].filter((x) => first.includes(x)).length / set.size);
        },
      ),
      { seed: 51 },
    );
  });

  test('copies in the list take no place', () => {
    assert.equal(hitShare(['a', 'a', 'a', 'b'], new Set(['b']), 2), 1);
    assert.equal(hitShare([], new Set(['b']), 2), 0);
  });
});

describe('groupRequests', () => {
  test('keeps held-back requests with a click, newest first, and only final samples', () => {
    const { requests } = groupRequests(
      [
        sample('old', 0, 'a', { clicked: true, requestTimeMs: 1 }),
        sample('old', 1, 'b'),
        sample('old', 1, 'x', { kind: 'CLICK', clicked: true }),
        sample('none', 0, 'a'),
        sample('new', 0, 'c', { clicked: true, requestTimeMs: 9 }),
      ],
      1,
    );
    assert.deepEqual(
      requests.map((r) => [r.requestId, [...r.viewed], [...r.clicked]]),
      [
        ['new', ['c'], ['c']],
        ['old', ['a', 'b'], ['a']],
      ],
    );
    assert.equal(requests[0]!.history.clicks[0]!.itemId, 'h');
  });

  test('popularity knows nothing of held-back requests', () => {
    const ids = Array.from({ length: 300 }, (_, i) => `r${i}`);
    const { requests, clicksByItem } = groupRequests(
      ids.map((id) => sample(id, 0, id, { clicked: true })),
      0.3,
    );
    const held = new Set(requests.map((r) => r.requestId));
    assert.ok(held.size > 50 && held.size < 150);
    for (const id of ids) {
      assert.equal(held.has(id), isHeldBack(id, 0.3));
      assert.equal(clicksByItem.get('product_card')!.has(id), !held.has(id));
    }
  });
});

test('HitRates: the policy, popularity and random by hand', () => {
  const items = Array.from({ length: 200 }, (_, i) => item(`i${i}`));
  const clicks = new Map([['product_card', new Map(items.map((it, i) => [it.itemId, 1000 - i]))]]);
  const rates = new HitRates(clicks, items);
  const { requests } = groupRequests(
    [sample('r', 0, 'i0', { clicked: true }), sample('r', 1, 'i70'), sample('r', 2, 'i150')],
    1,
  );
  rates.add(requests[0]!, ['i150', 'x', 'i0']);
  const { product_card } = rates.summary();
  const near = (name: string, value: number) =>
    assert.ok(Math.abs(product_card![name]! - value) < 1e-12, name);
  near('requests', 1);
  near('hr_viewed_50', 2 / 3);
  near('hr_clicked_50', 1);
  near('popularity_viewed_50', 1 / 3);
  near('popularity_viewed_100', 2 / 3);
  near('popularity_clicked_50', 1);
  near('random_viewed_50', 0.25);
  near('random_viewed_500', 1);
});

describe('planRetirement', () => {
  const record = (scenario: string, oldestVersion = 1) => ({ scenario, oldestVersion }) as Codebook;
  const plan = (more: Partial<Parameters<typeof planRetirement>[0]>) =>
    planRetirement({
      newest: [record('product_card'), record('live_stream')],
      used: new Map([
        ['product_card', { version: 3, sinceMs: 1_000 }],
        ['live_stream', { version: 2, sinceMs: 5_000 }],
      ]),
      ...{ readByTower: null, waitMs: 100, nowMs: 10_000, ...more },
    });

  test('retires what lies below the policy in use, after the wait', () => {
    assert.deepEqual(plan({}), [
      { scenario: 'product_card', oldestVersion: 3, retires: [1, 2], dueMs: null },
      { scenario: 'live_stream', oldestVersion: 2, retires: [1], dueMs: null },
    ]);
    // Towers of the live version before are needed as long as it is: cards wait for both.
    assert.deepEqual(
      plan({ nowMs: 5_050 }).map(({ dueMs }) => dueMs),
      [5_100, 5_100],
    );
    assert.deepEqual(
      plan({ nowMs: 5_100 }).map(({ dueMs }) => dueMs),
      [null, null],
    );
  });

  test('a version that a live tower reads stays', () => {
    assert.deepEqual(plan({ readByTower: 2 })[0], {
      ...{ scenario: 'product_card', oldestVersion: 2, retires: [1], dueMs: null },
    });
    assert.deepEqual(plan({ readByTower: 1 })[0]!.retires, []);
  });

  test('a scenario that no policy reads, or whose policy went back, keeps all it has', () => {
    const newest = [record('short_video', 2), record('product_card', 3)];
    assert.deepEqual(
      plan({ newest, used: new Map([['product_card', { version: 2, sinceMs: 0 }]]) }).map((p) => [
        p.oldestVersion,
        p.retires,
      ]),
      [
        [2, []],
        [3, []],
      ],
    );
  });
});

test('a first codebook is measured by the limits that the job has by default', () => {
  const { maxExcessConflict, minCodeUsage, maxRelativeError } = jobShape;
  assert.deepEqual(USUAL_LIMITS, {
    maxExcessConflict: maxExcessConflict.parse(undefined),
    minUsage: minCodeUsage.parse(undefined),
    maxRelativeError: maxRelativeError.parse(undefined),
  });
});
