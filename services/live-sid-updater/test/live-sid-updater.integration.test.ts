import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { LiveSid } from '@onemall/contracts';
import { FencedError } from '@onemall/kafka-io';
import { type Codebook, encode, readCodebook, stackVectors } from '@onemall/quantization';
import { startTestStack, type TestStack, vectorOf } from '@onemall/testkit';
import { Harness } from './broker-harness.ts';
import { item } from './items.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const products = Array.from({ length: 60 }, (_, n) =>
  item(`p${n}`, { embedding: vectorOf(n), category: `c${n % 4}` }),
);

/** What the room's SID must be, from the artifact and the products alone: the explained product counts twice. */
async function expectedSid(codebook: Codebook, selling: number[], explained: number | null) {
  const weights = selling.map((n) => (n === explained ? 2 : 1));
  const total = weights.reduce((a, b) => a + b, 0);
  const mean = Array.from(
    { length: 8 },
    (_, d) => selling.reduce((sum, n, i) => sum + weights[i]! * vectorOf(n)[d]!, 0) / total,
  );
  const [c1, c2, c3] = await encode(codebook, stackVectors([mean]));
  return { scenario: 'live_stream', codebookVersion: 1, c1, c2, c3 };
}

describe('live-sid-updater', () => {
  test('follows a room through its product changes, a crash and its end', async (t) => {
    const h = await Harness.create(stack);
    t.after(() => h.close());
    await h.put(...products, item('room', { scenario: 'live_stream' }));
    let service = await h.start();
    await h.until('codebooks', () => h.codebooks.length === 2);
    const record = h.codebooks.find((c) => c.key === 'live_stream')!.value!;
    const codebook = readCodebook(await h.artifacts.get(record));

    const steps: [
      kind: 'ADDED' | 'REMOVED' | 'EXPLAINING',
      n: number,
      selling: number[],
      explained: number | null,
    ][] = [
      ['ADDED', 3, [3], null],
      ['ADDED', 17, [3, 17], null],
      ['EXPLAINING', 17, [3, 17], 17],
      ['ADDED', 42, [3, 17, 42], 17],
      ['REMOVED', 17, [3, 42], null],
    ];
    const seen: LiveSid[] = [];
    const check = async (step: (typeof steps)[number], eventTimeMs: number): Promise<void> => {
      const [kind, n, selling, explained] = step;
      const before = h.liveSids.length;
      await h.change('room', kind, `p${n}`, eventTimeMs);
      await h.until(`the live SID after ${kind} p${n}`, () => h.liveSids.length > before);
      const value = h.room('room')!;
      assert.deepEqual({ ...value.sid }, await expectedSid(codebook, selling, explained));
      assert.deepEqual(
        value.sellingItemIds,
        selling.map((i) => `p${i}`),
      );
      assert.equal(value.explainingItemId, explained === null ? null : `p${explained}`);
      assert.equal(value.validFromMs, seen.length === 0 ? 0 : eventTimeMs);
      assert.equal(value.reason, seen.length === 0 ? 'NEW_ITEM' : 'PRODUCT_CHANGE');
      seen.push(value);
    };
    for (const [i, step] of steps.entries()) await check(step, 10_000 + i * 1_000);
    assert.deepEqual(
      seen.map((s) => s.sourceOffset),
      [0, 1, 2, 3, 4],
    );

    // A crash loses nothing: the room goes on from live-sids, and no SID is published twice.
    await service.kill();
    const published = h.liveSids.length;
    service = await h.start();
    await check(['ADDED', 9, [3, 42, 9], null], 20_000);
    assert.equal(h.liveSids.length, published + 1);

    // An older change that comes late does not bring a removed product back, and moves no SID into the past.
    await h.change('room', 'REMOVED', 'p9', 22_000);
    await h.until('p9 is gone', () => h.room('room')!.sellingItemIds.length === 2);
    await h.change('room', 'ADDED', 'p9', 21_500);
    await check(['EXPLAINING', 3, [3, 42], 3], 23_000);

    await h.change('room', 'ROOM_ENDED', null, 24_000);
    await h.until('the tombstone', () => h.liveSids.at(-1)!.value === null);
    assert.equal(h.liveSids.at(-1)!.key, 'room:1');
    assert.equal(await service.stop(), 0);
    assert.deepEqual(
      h.deadLetters.map((d) => d.value!.reason),
      [],
    );
  });

  test('bootstraps from nothing, and follows new, changed and removed items', async (t) => {
    const h = await Harness.create(stack);
    t.after(() => h.close());
    const service = await h.start();
    const videos = Array.from({ length: 50 }, (_, n) =>
      item(`v${n}`, { scenario: 'short_video', productId: `p${n}`, embedding: vectorOf(1000 + n, 4) }),
    );
    await h.put(...products, ...videos);
    await h.until('codebooks', () => h.codebooks.length === 2);
    await h.until('all item SIDs', () => h.itemSids.length === products.length + videos.length);
    assert.deepEqual(h.codebooks.map((c) => [c.key, c.value!.codebookVersion, c.value!.dim]).sort(), [
      ['product_card', 1, 8],
      ['short_video', 1, 12],
    ]);
    assert.ok(h.itemSids.every((r) => r.value!.validFromMs === 0 && r.value!.reason === 'NEW_ITEM'));
    const [cards, clips] = await Promise.all(
      ['product_card', 'short_video'].map(async (scenario) =>
        readCodebook(await h.artifacts.get(h.codebooks.find((c) => c.key === scenario)!.value!)),
      ),
    );
    const codes = (id: string) => {
      const { c1, c2, c3 } = h.item(id)!.sid;
      return [c1, c2, c3];
    };
    assert.deepEqual(codes('p5'), [...(await encode(cards!, stackVectors([vectorOf(5)])))]);
    assert.deepEqual(codes('v5'), [
      ...(await encode(clips!, stackVectors([[...vectorOf(5), ...vectorOf(1005, 4)]]))),
    ]);

    await h.put(item('new', { embedding: vectorOf(77) }));
    await h.until('the SID of a new item', () => h.item('new') !== null);
    assert.deepEqual(codes('new'), [...(await encode(cards!, stackVectors([vectorOf(77)])))]);
    assert.equal(h.item('new')!.validFromMs, 0);

    // p5 becomes another product: its SID and that of the video which promotes it change as of then.
    await h.put(item('p5', { embedding: vectorOf(31), validFromMs: 5_000 }));
    await h.until(
      'changed SIDs',
      () => h.item('p5')!.reason === 'ITEM_CHANGED' && h.item('v5')!.reason === 'ITEM_CHANGED',
    );
    assert.deepEqual(codes('p5'), codes('p31'));
    assert.equal(h.item('p5')!.validFromMs, 5_000);

    await h.writer.send([{ topic: 'items', key: 'new', value: null }]);
    await h.until('the tombstone', () => h.itemSids.at(-1)!.value === null);
    assert.equal(h.itemSids.at(-1)!.key, 'new:1');

    await h.until('metrics of the catalogue', () =>
      h.metrics.some((m) => m.value!.scenario === 'product_card'),
    );
    const { values } = h.metrics.findLast((m) => m.value!.scenario === 'product_card')!.value!;
    assert.ok(values.conflict! >= 0 && values.exclusive! > 0 && values.usage1! > 0);
    assert.equal((await service.status()).deadLetters, 0);

    // A second start trains nothing and publishes nothing again.
    const sids = h.itemSids.length;
    await service.stop();
    const again = await h.start();
    await h.put(item('last', { embedding: vectorOf(90) }));
    await h.until('the SID of the last item', () => h.item('last') !== null);
    assert.equal(h.itemSids.length, sids + 1);
    assert.equal(h.codebooks.length, 2);
    await again.stop();
  });

  test('bad input goes to dead-letters with its reason, and the rest flows on', async (t) => {
    const h = await Harness.create(stack);
    t.after(() => h.close());
    const service = await h.start();
    await h.put(...products, item('short', { embedding: [1, 2] }));
    await h.until('codebooks', () => h.codebooks.length === 1);
    await h.writer.send([{ topic: 'live-product-changes', key: 'room', valueBytes: Buffer.from('poison') }]);
    await h.change('room', 'ADDED', '', 2_000);
    await h.change('room', 'ADDED', null, 2_000);
    await h.change('room', 'ADDED', 'p1', 9e15);
    await h.change('room', 'ADDED', 'p1', 3_000);
    await h.until('the room', () => h.room('room') !== null);
    assert.deepEqual(h.room('room')!.sellingItemIds, ['p1']);
    await h.until('dead letters', () => h.deadLetters.length === 5);
    assert.deepEqual(h.deadLetters.map((d) => d.value!.reason).sort(), [
      'EMPTY_ID',
      'EMPTY_ID',
      'NOT_WIRE_FORMAT',
      'TIME_OUT_OF_RANGE',
      'WRONG_DIMENSION',
    ]);
    assert.equal((await service.status()).deadLetters, 5);
    await service.stop();
  });

  test('two processes share the rooms, and a room keeps its state when its owner goes', async (t) => {
    const h = await Harness.create(stack);
    t.after(() => h.close());
    await h.put(...products, item('a', { scenario: 'live_stream' }));
    const first = await h.start();
    await h.until('codebooks', () => h.codebooks.length === 2);
    const rooms = Array.from({ length: 8 }, (_, i) => `room${i}`);
    for (const [i, room] of rooms.entries()) await h.change(room, 'ADDED', `p${i}`, 1_000);
    await h.until('all rooms', () => rooms.every((room) => h.room(room)));
    const second = await h.start();
    await h.until('the second owns a share', () => second.logTail(200).includes('owns a partition'));
    for (const [i, room] of rooms.entries()) await h.change(room, 'ADDED', `p${i + 20}`, 2_000);
    await h.until('two products each', () =>
      rooms.every((room) => h.room(room)!.sellingItemIds.length === 2),
    );
    await first.kill();
    for (const [i, room] of rooms.entries()) await h.change(room, 'REMOVED', `p${i}`, 3_000);
    await h.until('one product each', () => rooms.every((room) => h.room(room)!.sellingItemIds.length === 1));
    for (const [i, room] of rooms.entries()) {
      assert.deepEqual(h.room(room)!.sellingItemIds, [`p${i + 20}`]);
      const validFrom = h.liveSids.filter((r) => r.key === `${room}:1`).map((r) => r.value!.validFromMs);
      assert.deepEqual(validFrom, [0, 2_000, 3_000], `${room}: each change published once, in order`);
    }

    // Two that take themselves for the owner: the one that took a partition last writes, the other is refused.
    const others = await Promise.all(
      [0, 1].map((partition) =>
        h.kafka.openTransactionalWriter(`${h.kafka.options.namespace}.live-sid-updater-${partition}`),
      ),
    );
    for (const other of others) await other.init();
    for (const [i, room] of rooms.entries()) await h.change(room, 'ADDED', `p${i + 30}`, 4_000);
    await h.until('two products again', () =>
      rooms.every((room) => h.room(room)!.sellingItemIds.length === 2),
    );
    const published = h.liveSids.length;
    for (const other of others) {
      const end = { topic: 'live-sids', key: 'room0:1', value: null } as const;
      await assert.rejects(other.commit({ records: [end] }), FencedError);
      await other.close();
    }
    await h.change('room0', 'ADDED', 'p40', 5_000);
    await h.until('a change after it', () => h.room('room0')?.validFromMs === 5_000);
    assert.equal(h.liveSids.length, published + 1);
    for (const room of rooms) {
      const validFrom = h.liveSids.filter((r) => r.key === `${room}:1`).map((r) => r.value!.validFromMs);
      assert.deepEqual(validFrom.slice(0, 4), [0, 2_000, 3_000, 4_000], room);
    }
    await second.stop();
  });
});
