import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { LiveSid, ProductChangeKind } from '@onemall/contracts';
import fc from 'fast-check';
import { Rooms } from '../src/state/rooms.ts';

const make = () => new Rooms({ debounceMs: 50, maxDebounceMs: 150 });
let offset = 0;
const taken = (
  liveId: string,
  kind: ProductChangeKind,
  itemId: string | null,
  eventTimeMs: number,
  at: { partition?: number; offset?: number } = {},
) => ({
  partition: at.partition ?? 0,
  offset: at.offset ?? offset++,
  appendedMs: eventTimeMs,
  change: { changeId: 'c', liveId, kind, itemId, eventTimeMs },
});
const liveSid = (
  liveId: string,
  sourceOffset: number,
  sellingItemIds: string[],
  sourcePartition = 0,
): LiveSid => ({
  liveId,
  sid: null,
  validFromMs: 0,
  reason: 'NEW_ITEM',
  sellingItemIds,
  explainingItemId: null,
  sourcePartition,
  sourceOffset,
  createdMs: 0,
});

describe('Rooms', () => {
  test('a burst in one room is one computation, and a room that never rests is computed at the latest after the limit', () => {
    const rooms = make();
    for (let t = 0; t < 100; t += 10) rooms.take(taken('r', 'ADDED', `p${t}`, t), t);
    assert.deepEqual(rooms.settle(130), []);
    const [settled] = rooms.settle(140);
    assert.equal(settled!.state.sellingItemIds.length, 10);
    assert.equal(settled!.causeMs, 90);
    assert.equal(settled!.oldestAppendedMs, 0);
    assert.deepEqual(rooms.settle(500), []);
    for (let t = 1000; t <= 1150; t += 10) rooms.take(taken('r', 'EXPLAINING', `p${t % 40}`, t), t);
    assert.equal(rooms.settle(1149).length, 0);
    assert.equal(rooms.settle(1150).length, 1);
  });

  test('changes of one debounce apply in order of event time', () => {
    const rooms = make();
    rooms.take(taken('r', 'REMOVED', 'a', 30), 0);
    rooms.take(taken('r', 'ADDED', 'b', 20), 1);
    rooms.take(taken('r', 'ADDED', 'a', 10), 2);
    assert.deepEqual(rooms.settle(100)[0]!.state.sellingItemIds, ['b']);
  });

  test('what live-sids holds already is skipped after a restart', () => {
    const rooms = make();
    rooms.restore(liveSid('r', 7, ['a', 'b']));
    assert.equal(rooms.take(taken('r', 'REMOVED', 'a', 1, { offset: 7 }), 0), false);
    assert.equal(rooms.take(taken('r', 'REMOVED', 'b', 1, { offset: 8 }), 0), true);
    assert.deepEqual(rooms.settle(100)[0]!.state.sellingItemIds, ['a']);
    rooms.restore(liveSid('r', 5, ['x']));
    assert.equal(rooms.isLive('r'), true);
    assert.equal(rooms.liveCount, 1);
  });

  test('the offset to go on from after a crash is that of the oldest change without a durable record', () => {
    const rooms = make();
    rooms.take(taken('slow', 'ADDED', 'a', 1, { offset: 100 }), 100);
    rooms.take(taken('quick', 'ADDED', 'a', 1, { offset: 101 }), 0);
    const [quick] = rooms.settle(60);
    assert.equal(quick!.liveId, 'quick');
    assert.equal(rooms.oldestUnstored(0), 100);
    rooms.stored(quick!);
    assert.equal(rooms.oldestUnstored(0), 100);
    rooms.stored(rooms.settle(200)[0]!);
    assert.equal(rooms.oldestUnstored(0), null);
    assert.equal(rooms.oldestUnstored(1), null);
  });

  test('a changed product concerns the rooms that sell it, and only those', () => {
    const rooms = make();
    rooms.take(taken('r1', 'ADDED', 'a', 1), 0);
    rooms.take(taken('r2', 'ADDED', 'b', 1), 0);
    rooms.settle(100).forEach((room) => {
      rooms.stored(room);
    });
    rooms.productChanged('a', 500);
    rooms.productChanged('unknown', 500);
    assert.deepEqual(
      rooms.settle(100).map((room) => [room.liveId, room.reason, room.causeMs]),
      [['r1', 'ITEM_CHANGED', 500]],
    );
    rooms.take(taken('r1', 'REMOVED', 'a', 600), 100);
    rooms.settle(300);
    rooms.productChanged('a', 700);
    assert.deepEqual(rooms.settle(400), []);
  });

  test('a codebook concerns all rooms, and a partition that goes takes its rooms along', () => {
    const rooms = make();
    for (let i = 0; i < 6; i++) rooms.restore(liveSid(`r${i}`, i, ['a'], i % 2));
    rooms.codebookArrived();
    assert.equal(rooms.settle(0).length, 6);
    rooms.forget(1);
    assert.equal(rooms.liveCount, 3);
    rooms.productChanged('a', 1);
    assert.deepEqual(
      rooms.settle(0).map((room) => room.partition),
      [0, 0, 0],
    );
  });

  test('however changes are cut into bursts, the rooms end up the same', () => {
    const kinds = fc.constantFrom<ProductChangeKind>('ADDED', 'REMOVED', 'EXPLAINING');
    const step = fc.tuple(fc.constantFrom('r1', 'r2'), kinds, fc.constantFrom('a', 'b', 'c'), fc.boolean());
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const final = (settleAt: (i: number) => boolean): unknown => {
          const rooms = make();
          const state = new Map<string, unknown>();
          const settle = () => {
            for (const room of rooms.settle(0, { all: true })) {
              const { sellingItemIds, explainingItemId } = room.state;
              state.set(room.liveId, { sellingItemIds, explainingItemId, offset: room.offset });
            }
          };
          for (const [i, [liveId, kind, itemId]] of steps.entries()) {
            rooms.take(taken(liveId, kind, itemId, i, { offset: i }), i);
            if (settleAt(i)) settle();
          }
          settle();
          return state;
        };
        const all = final(() => true);
        assert.deepEqual(
          final((i) => steps[i]![3]),
          all,
        );
        assert.deepEqual(
          final(() => false),
          all,
        );
      }),
      { seed: 41, numRuns: 200 },
    );
  });
});
