import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Updater } from './updater-without-broker.ts';

const HOLD_MS = 2_000;

/** A room that sells p1 and p9 and explains one of them at a time: two SIDs. */
async function flippingRoom(flapHoldMs = HOLD_MS) {
  const updater = new Updater([], flapHoldMs);
  await updater.publishRoom('ADDED', 'p1', 1_000, 1_000);
  await updater.publishRoom('ADDED', 'p9', 1_100, 1_100);
  const explain = async (itemId: string, nowMs: number) => {
    const [record] = await updater.publishRoom('EXPLAINING', itemId, nowMs, nowMs);
    return record!.value!;
  };
  const codes = ({ sid }: { sid: { c1: number; c2: number; c3: number } | null }) => [
    sid!.c1,
    sid!.c2,
    sid!.c3,
  ];
  const first = codes(await explain('p1', 10_000));
  const second = codes(await explain('p9', 20_000));
  assert.notDeepEqual(first, second);
  return { updater, explain, codes, first, second };
}

describe('a room that flips between two SIDs', () => {
  test('goes back to the one it has just left when that has lasted; its products are told at once', async () => {
    const { updater, explain, codes, first, second } = await flippingRoom();
    const back = await explain('p1', 20_500);
    assert.deepEqual(codes(back), second);
    assert.equal(back.explainingItemId, 'p1');
    assert.equal((await updater.settle(21_999)).computed, 0);
    const { records, productChanges } = await updater.settle(20_000 + HOLD_MS);
    assert.deepEqual(codes(records[0]!.value!), first);
    assert.equal(productChanges, 1);
    assert.equal(records[0]!.value!.reason, 'PRODUCT_CHANGE');
    assert.ok(records[0]!.value!.validFromMs > back.validFromMs);
    assert.equal(updater.state.rooms.waiting, false);
  });

  test('never leaves its SID where it flips back in time', async () => {
    const { updater, explain, codes, second } = await flippingRoom();
    for (const [i, itemId] of ['p1', 'p9', 'p1', 'p9'].entries())
      assert.deepEqual(codes(await explain(itemId, 20_300 + 300 * i)), second);
    const { records } = await updater.settle(20_000 + HOLD_MS);
    assert.deepEqual(records, []);
  });

  test('goes to a third SID at once, and back at once after the hold or without one', async () => {
    const { updater, codes, first, second } = await flippingRoom();
    const third = (await updater.publishRoom('EXPLAINING', 'p12', 20_100, 20_100))[0]!.value!;
    for (const known of [first, second]) assert.notDeepEqual(codes(third), known);
    const late = await flippingRoom();
    assert.deepEqual(codes(await late.explain('p1', 20_000 + HOLD_MS)), first);
    const free = await flippingRoom(0);
    assert.deepEqual(free.codes(await free.explain('p1', 20_001)), first);
  });

  test('ends while it is held', async () => {
    const { updater, explain } = await flippingRoom();
    await explain('p1', 20_500);
    const [tombstone] = await updater.publishRoom('ROOM_ENDED', null, 20_600, 20_600);
    assert.equal(tombstone!.value, null);
    assert.deepEqual((await updater.settle(30_000)).records, []);
  });
});

test('a burst of a thousand changes of one room is one record', async () => {
  const updater = new Updater();
  const { rooms } = updater.state;
  for (let n = 0; n < 1_000; n++)
    rooms.take(
      {
        partition: 0,
        offset: n,
        appendedMs: n,
        change: {
          changeId: `c${n}`,
          liveId: 'room',
          kind: n % 3 === 2 ? 'REMOVED' : 'ADDED',
          itemId: `p${n % 20}`,
          eventTimeMs: 1_000 + n,
        },
      },
      0,
    );
  const { records, computed } = await updater.settle(1_000);
  assert.equal(computed, 1);
  assert.equal(records.length, 1);
  assert.equal(records[0]!.value!.sourceOffset, 999);
});
