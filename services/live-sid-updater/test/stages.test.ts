import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Codebook, LiveSid, ProductChange, ProductChangeKind, Sid } from '@onemall/contracts';
import { vectorOf } from '@onemall/testkit';
import fc from 'fast-check';
import {
  applyChange,
  applyChanges,
  EMPTY_ROOM,
  forgetOldChanges,
  type RoomState,
} from '../src/stages/apply-change.ts';
import { chooseVersions, MissingCodebookError } from '../src/stages/choose-versions.ts';
import { decideItemSid } from '../src/stages/decide-item-sid.ts';
import { decideLiveSid } from '../src/stages/decide-live-sid.ts';
import { planBootstrap } from '../src/stages/plan-bootstrap.ts';
import { parseSidKey, sidKey } from '../src/state/published.ts';
import { RecentCount } from '../src/state/recent-count.ts';
import { UpdaterState } from '../src/state/updater-state.ts';
import { item } from './items.ts';

const change = (kind: ProductChangeKind, itemId: string | null, eventTimeMs: number): ProductChange => ({
  changeId: `${kind}${itemId}${eventTimeMs}`,
  liveId: 'room',
  kind,
  itemId,
  eventTimeMs,
});
const sid = (c1: number): Sid => ({ scenario: 'live_stream', codebookVersion: 1, c1, c2: 0, c3: 0 });

/** The obvious rule: of each product the newest change decides, and of the explanations the newest. */
function slowRoom(changes: readonly ProductChange[]): { selling: Set<string>; explaining: string | null } {
  const end = Math.max(-1, ...changes.filter((c) => c.kind === 'ROOM_ENDED').map((c) => c.eventTimeMs));
  const after = changes.filter((c) => c.kind !== 'ROOM_ENDED' && c.eventTimeMs > end);
  const newest = new Map<string, ProductChange>();
  for (const c of after.toSorted((a, b) => a.eventTimeMs - b.eventTimeMs)) newest.set(c.itemId!, c);
  const selling = new Set([...newest].filter(([, c]) => c.kind !== 'REMOVED').map(([id]) => id));
  const explained = after
    .filter((c) => c.kind === 'EXPLAINING')
    .toSorted((a, b) => a.eventTimeMs - b.eventTimeMs)
    .at(-1)?.itemId;
  const removedSince =
    explained &&
    after.some(
      (c) =>
        c.kind === 'REMOVED' &&
        c.itemId === explained &&
        c.eventTimeMs > after.findLast((e) => e.kind === 'EXPLAINING' && e.itemId === explained)!.eventTimeMs,
    );
  return { selling, explaining: explained && !removedSince ? explained : null };
}

describe('applyChange', () => {
  const changes = fc
    .uniqueArray(fc.integer({ min: 1, max: 200 }), { maxLength: 25 })
    .chain((times) =>
      fc.tuple(
        ...times.map((time) =>
          fc
            .tuple(
              fc.constantFrom<ProductChangeKind>('ADDED', 'ADDED', 'EXPLAINING', 'REMOVED'),
              fc.constantFrom('a', 'b', 'c', 'd'),
            )
            .map(([kind, id]) => change(kind, id, time)),
        ),
      ),
    );

  test('in order of event time the room is as its changes say', () => {
    fc.assert(
      fc.property(changes, (list) => {
        const inOrder = list.toSorted((a, b) => a.eventTimeMs - b.eventTimeMs);
        const room = inOrder.reduce(applyChange, EMPTY_ROOM);
        const slow = slowRoom(inOrder);
        assert.deepEqual(new Set(room.sellingItemIds), slow.selling);
        assert.equal(room.explainingItemId, slow.explaining);
        assert.equal(new Set(room.sellingItemIds).size, room.sellingItemIds.length);
      }),
      { seed: 31, numRuns: 300 },
    );
  });

  test('in any order the same products are on sale', () => {
    fc.assert(
      fc.property(
        changes.chain((list) =>
          fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length })),
        ),
        ([list, shuffled]) => {
          const room = shuffled.reduce(applyChange, EMPTY_ROOM);
          assert.deepEqual(new Set(room.sellingItemIds), slowRoom(list).selling);
        },
      ),
      { seed: 32, numRuns: 300 },
    );
  });

  test('a copy changes nothing', () => {
    fc.assert(
      fc.property(changes, (list) => {
        const once = list.toSorted((a, b) => a.eventTimeMs - b.eventTimeMs);
        assert.deepEqual(
          once.flatMap((c) => [c, c]).reduce(applyChange, EMPTY_ROOM).sellingItemIds,
          once.reduce(applyChange, EMPTY_ROOM).sellingItemIds,
        );
      }),
      { seed: 33 },
    );
  });

  test('a burst is its changes one by one, and the room before it stays as it was', () => {
    fc.assert(
      fc.property(changes, fc.nat(25), fc.nat(24), (list, cut, endAt) => {
        const ended = (list as ProductChange[]).toSpliced(endAt, 0, change('ROOM_ENDED', null, 100));
        const before = ended.slice(0, cut).reduce(applyChange, EMPTY_ROOM);
        const copy = structuredClone(before);
        assert.deepEqual(
          applyChanges(before, ended.slice(cut)),
          ended.slice(cut).reduce(applyChange, before),
        );
        assert.deepEqual(before, copy);
        assert.equal(EMPTY_ROOM.changedMs.size, 0);
      }),
      { seed: 34, numRuns: 300 },
    );
  });

  test('after the end only later changes count', () => {
    let room: RoomState = [change('ADDED', 'a', 1), change('ROOM_ENDED', null, 5)].reduce(
      applyChange,
      EMPTY_ROOM,
    );
    assert.equal(room.endedMs, 5);
    room = applyChange(room, change('ADDED', 'b', 4));
    assert.deepEqual([room.sellingItemIds, room.endedMs], [[], 5]);
    room = applyChange(room, change('ADDED', 'c', 6));
    assert.deepEqual([room.sellingItemIds, room.endedMs], [['c'], null]);
  });

  test('times of products long off sale are forgotten, those on sale are not', () => {
    const room = [change('ADDED', 'a', 1), change('ADDED', 'b', 2), change('REMOVED', 'b', 3)].reduce(
      applyChange,
      EMPTY_ROOM,
    );
    assert.deepEqual([...forgetOldChanges(room, 4).changedMs.keys()], ['a']);
    assert.deepEqual([...forgetOldChanges(room, 3).changedMs.keys()], ['a', 'b']);
  });
});

describe('decideLiveSid', () => {
  const decide = (before: LiveSid | null, c1: number | null, causeMs: number, more: object = {}) =>
    decideLiveSid({
      liveId: 'room',
      sid: c1 === null ? null : sid(c1),
      before,
      endedMs: null,
      sellingItemIds: ['a'],
      explainingItemId: null,
      sourcePartition: 1,
      sourceOffset: 7,
      causeMs,
      reason: 'PRODUCT_CHANGE',
      nowMs: 99,
      ...more,
    });

  test('the first SID is valid from 0, later ones from their cause and always after the one before', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.nat(50)), { minLength: 1 }),
        (steps) => {
          let before = null as LiveSid | null;
          for (const [c1, causeMs] of steps) {
            const next = decide(before, c1, causeMs);
            if (!next) {
              assert.equal(before?.sid?.c1, c1, 'only an equal SID is not published');
              continue;
            }
            if (!before) assert.deepEqual([next.validFromMs, next.reason], [0, 'NEW_ITEM']);
            else assert.ok(next.validFromMs > before.validFromMs && next.validFromMs >= causeMs);
            before = next;
          }
        },
      ),
      { seed: 34 },
    );
  });

  test('a room without SID so far gets its first one from 0', () => {
    const none = decide(null, null, 10)!;
    assert.deepEqual([none.sid, none.validFromMs], [null, 0]);
    assert.equal(decide(none, 1, 20)!.validFromMs, 0);
  });

  test('a room that closed and is live again rewrites nothing: its SID comes after the end of the last one', () => {
    const reopened = decide(null, 1, 150, { endedMs: 200 })!;
    assert.equal(reopened.validFromMs, 201);
    assert.equal(decide(null, 1, 300, { endedMs: 200 })!.validFromMs, 300);
    const withoutSid = decide(null, null, 300, { endedMs: 200 })!;
    assert.equal(decide(withoutSid, 1, 300, { endedMs: 200 })!.validFromMs, 301);
  });

  test('the list and the explained product are state too', () => {
    const before = decide(null, 1, 10)!;
    assert.equal(decide(before, 1, 20), null);
    assert.deepEqual(decide(before, 1, 20, { sellingItemIds: ['a', 'b'] })!.sellingItemIds, ['a', 'b']);
    assert.equal(decide(before, 1, 20, { explainingItemId: 'a' })!.explainingItemId, 'a');
  });
});

test('decideItemSid: first from 0, equal codes publish nothing, a change is valid from its item, after the one before', () => {
  const fixed = { itemId: 'a', sid: sid(2), itemValidFromMs: 50, firstReason: 'NEW_ITEM', nowMs: 1 } as const;
  const input = { ...fixed, endedMs: null };
  assert.deepEqual(decideItemSid({ ...input, before: null })?.validFromMs, 0);
  assert.equal(decideItemSid({ ...input, before: { c1: 2, c2: 0, c3: 0, validFromMs: 0 } }), null);
  const before = { c1: 1, c2: 0, c3: 0, validFromMs: 0 };
  assert.equal(decideItemSid({ ...input, before })?.validFromMs, 50);
  assert.equal(decideItemSid({ ...input, before: { ...before, validFromMs: 70 } })?.validFromMs, 71);
  assert.equal(
    decideItemSid({ ...input, before: null, endedMs: 40 })?.validFromMs,
    50,
    'back after its removal',
  );
  assert.equal(decideItemSid({ ...input, before: null, endedMs: 60 })?.validFromMs, 61);
});

test('keys keep colons of ids', () => {
  assert.deepEqual(parseSidKey(sidKey('shop:1:x', 12)), { id: 'shop:1:x', version: 12 });
});

describe('chooseVersions', () => {
  const record = (codebookVersion: number) => ({ codebookVersion }) as Codebook;
  const versions = (...args: Parameters<typeof chooseVersions>) =>
    chooseVersions(...args).map((r) => r.codebookVersion);

  test('stays on the lowest until told to follow', () => {
    assert.deepEqual(versions('s', [record(2), record(1)], new Set(), false), [1]);
    assert.deepEqual(versions('s', [record(2), record(1)], new Set(), true), [1, 2]);
    assert.deepEqual(versions('s', [], new Set([1]), false), []);
  });

  test('does not switch silently when the record in use is gone', () => {
    assert.throws(
      () => versions('s', [record(2)], new Set([1]), false),
      (error) => error instanceof MissingCodebookError && /FOLLOW_NEW_CODEBOOKS/.test(error.message),
    );
  });
});

describe('planBootstrap', () => {
  const limits = { minItemsForCodebook: 3, bootstrapQuietMs: 10, bootstrapMaxWaitMs: 100 };
  const made = (scenarios = ['product_card', 'short_video', 'live_stream']) =>
    new UpdaterState({
      scenarios,
      textEmbeddingDim: 8,
      debounceMs: 5,
      maxDebounceMs: 20,
      flapHoldMs: 0,
      numPartitions: 1,
    });
  const put = (state: UpdaterState, nowMs: number, value = item(`p${nowMs}`)) =>
    state.takeItem({ key: value.itemId, value, partition: 0, timestampMs: nowMs }, nowMs);

  test('waits for enough items and for quiet, but not forever', () => {
    const state = made();
    const since = new Map<string, number>();
    const kinds = (nowMs: number) =>
      planBootstrap(state, since, limits, nowMs).map((p) => `${p.kind} ${p.scenario}`);
    assert.deepEqual(kinds(0), [], 'nothing is there and nothing is waited for');
    put(state, 1);
    put(state, 2);
    assert.deepEqual(kinds(50), ['wait product_card'], 'too few');
    put(state, 51);
    assert.deepEqual(kinds(55), ['wait product_card'], 'not quiet');
    assert.deepEqual(kinds(61), ['train product_card']);
    for (let t = 62; t < 155; t += 5) put(state, t);
    assert.deepEqual(kinds(155), ['train product_card'], 'never quiet, but long enough');
  });

  test('product cards go first, and absent scenarios are not waited for', () => {
    const state = made();
    for (let t = 1; t <= 3; t++) put(state, t);
    put(state, 4, item('live', { scenario: 'live_stream' }));
    const plan = () => planBootstrap(state, new Map(), limits, 1_000);
    assert.deepEqual(
      plan().map((p) => [p.kind, p.scenario]),
      [
        ['train', 'product_card'],
        ['wait', 'live_stream'],
      ],
    );
    state.takeCodebook({ scenario: 'product_card', codebookVersion: 1 } as Codebook);
    assert.deepEqual(
      plan().map((p) => [p.kind, p.scenario]),
      [['train', 'live_stream']],
    );
  });

  test('an item whose embedding cannot be used is refused and the one before stays', () => {
    const state = made();
    put(state, 1, item('a', { embedding: vectorOf(1) }));
    assert.throws(() => put(state, 2, item('b', { embedding: [1] })), /have 8 numbers, that of item b has 1/);
    assert.equal(state.catalogue.count('product_card'), 1);
  });
});

test('RecentCount forgets what is older than a minute', () => {
  const count = new RecentCount();
  count.add(1_000, 2);
  count.add(30_000);
  assert.equal(count.lastMinute(60_500), 3);
  assert.equal(count.lastMinute(61_500), 1);
  assert.equal(count.lastMinute(200_000), 0);
});
