/** The structures that hold bytes and numbers, against what maps and arrays say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AvroReader, avroType } from '@onemall/contracts';
import fc from 'fast-check';
import { AvroWriter } from '../src/bytes/avro.ts';
import { BlockArena } from '../src/bytes/block-arena.ts';
import { hashBytes } from '../src/bytes/hash.ts';
import { NO_NUMBERS, NumberLists } from '../src/bytes/number-lists.ts';
import { Sections } from '../src/bytes/sections.ts';
import { SlotColumns } from '../src/bytes/slot-columns.ts';
import { SlotTable } from '../src/bytes/slot-table.ts';
import { DueTasks, TASK_BITS } from '../src/state/due-tasks.ts';
import { ActionFields, ExposureFields } from '../src/state/event-fields.ts';
import { bucketOf, TimeBuckets } from '../src/state/time-buckets.ts';
import { Users } from '../src/state/users.ts';
import { makeTraffic } from './traffic.ts';

test('blocks keep their bytes while others come and go, and slabs go back', () => {
  const step = fc.record({
    length: fc.integer({ min: 1, max: 3_000 }),
    isFree: fc.boolean(),
    which: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), fc.boolean(), (steps, withLarge) => {
      const arena = new BlockArena();
      const held: { address: number; bytes: Buffer }[] = [];
      for (const [i, { length, isFree, which }] of steps.entries()) {
        if (isFree && held.length > 0) {
          const [gone] = held.splice(which % held.length, 1);
          arena.free(gone!.address);
          continue;
        }
        const bytes = Buffer.alloc(withLarge && i % 50 === 0 ? 100_000 : length, i);
        held.push({ address: arena.put(bytes, 0, bytes.length), bytes });
      }
      for (const { address, bytes } of held) {
        const at = arena.placeOf(address);
        assert.ok(bytes.equals(arena.bytesAt(address).subarray(at, at + bytes.length)));
      }
      for (const { address } of held) arena.free(address);
      // One slab of each class may stay.
      assert.ok(arena.sizeBytes <= 90 * (1 << 16));
    }),
    { seed: 1, numRuns: 100 },
  );
});

test('while slabs are written away no byte of theirs changes, and after hundreds of times the arena is no larger', () => {
  const arena = new BlockArena();
  const held: { address: number; bytes: Buffer }[] = [];
  const put = (i: number): void => {
    const bytes = Buffer.alloc(16 + ((i * 37) % 400), i);
    held.push({ address: arena.put(bytes, 0, bytes.length), bytes });
  };
  // Half of them are open exposures, of which the oldest goes, half stay for long.
  const replace = (at: number): void => {
    const [gone] = held.splice(at, 1);
    arena.free(gone!.address);
    put(i++);
  };
  let i = 0;
  while (i < 3_000) put(i++);
  const work = (count: number): void => {
    for (let n = 0; n < count; n++) replace(n % 4 === 0 ? (i * 7_919) % held.length : 0);
  };
  const sizeBefore = arena.sizeBytes;
  for (let round = 0; round < 300; round++) {
    const saved = new Sections();
    arena.save('Slabs', saved);
    arena.freeze();
    const asSaved = round % 50 === 0 ? Buffer.concat([...saved.files().values()].flat()) : null;
    work(10);
    if (asSaved) assert.ok(asSaved.equals(Buffer.concat([...saved.files().values()].flat())));
    arena.thaw();
    work(60);
  }
  for (const { address, bytes } of held) {
    const at = arena.placeOf(address);
    assert.ok(bytes.equals(arena.bytesAt(address).subarray(at, at + bytes.length)));
  }
  assert.ok(arena.sizeBytes <= 2 * sizeBefore, `${sizeBefore} bytes, then ${arena.sizeBytes}`);
});

test('large blocks of a snapshot whose file has the size of a slab are not given out as slabs', () => {
  const lengths = [30_000, 35_536];
  const arena = new BlockArena();
  const addresses = lengths.map((length) => arena.put(new Uint8Array(length), 0, length));
  const saved = new Sections();
  arena.save('Slabs', saved);
  const files = [...saved.files()].map(([name, pieces]): [string, Buffer] => [
    name,
    Buffer.from(Uint8Array.from(Buffer.concat(pieces)).buffer),
  ]);
  const loaded = new BlockArena();
  loaded.load('Slabs', Sections.ofFiles(new Map(files)));
  for (const address of addresses) loaded.free(address);
  const next = new BlockArena();
  assert.equal(next.bytesAt(next.allocate(16)).length, 1 << 16);
});

test('of a snapshot only what was copied for it is let go, and its copies do not follow the live memory', () => {
  const [column, slab] = [Uint8Array.of(1, 2), Uint8Array.of(3, 4)];
  const sections = new Sections();
  sections.put('column', column);
  sections.put('Slabs-0', slab);
  sections.copyAllBut('Slabs');
  column[0] = 9;
  assert.deepEqual([...sections.get('column')], [1, 2]);
  sections.letGoOfCopies();
  assert.equal(sections.get('column').length, 0);
  assert.deepEqual([...column, ...slab, ...sections.get('Slabs-0')], [9, 2, 3, 4, 3, 4]);
});

test('a table of slots finds what a map has, however many hashes are equal', () => {
  const step = fc.tuple(fc.integer({ min: 0, max: 200 }), fc.boolean());
  fc.assert(
    fc.property(fc.array(step, { maxLength: 500 }), fc.constantFrom(1, 7, 1 << 30), (steps, spread) => {
      const table = new SlotTable(8);
      const model = new Set<number>();
      const hashOf = (slot: number): number => Math.imul(slot % spread, 0x9e3779b1);
      for (const [slot, isRemoved] of steps) {
        if (isRemoved && model.delete(slot)) table.remove(hashOf(slot), slot);
        else if (!isRemoved && !model.has(slot)) {
          model.add(slot);
          table.add(hashOf(slot), slot);
        }
      }
      assert.equal(table.size, model.size);
      for (let slot = 0; slot <= 200; slot++) {
        let found = false;
        for (let i = table.first(hashOf(slot)); table.slots[i]! >= 0; i = table.next(i))
          if (table.slots[i] === slot && table.hashes[i] === hashOf(slot)) found = true;
        assert.equal(found, model.has(slot));
      }
    }),
    { seed: 2, numRuns: 100 },
  );
});

test('columns keep rows while they grow, by little where they are large, and use freed slots again', () => {
  const columns = new SlotColumns({ number: Float64Array, small: Uint8Array });
  const count = 50_000;
  const first = columns.of.number;
  const slots = Array.from({ length: count }, (_, i) => {
    const slot = columns.add();
    columns.of.number[slot] = i / 2;
    columns.of.small[slot] = i % 256;
    return slot;
  });
  for (const [i, slot] of slots.entries())
    assert.deepEqual([columns.of.number[slot], columns.of.small[slot]], [i / 2, i % 256]);
  columns.free(slots[7]!);
  assert.equal(columns.isUsed(slots[7]!), false);
  assert.equal(columns.add(), slots[7]);
  assert.equal(columns.size, count);
  assert.equal(first.length, 0, 'a column that was replaced holds memory no longer');
  assert.ok(columns.sizeBytes <= 1.25 * count * (8 + 1 + 4));
});

test('tasks come by time, then rank, then tie, also those added while others are taken', () => {
  const task = fc.record({
    atMs: fc.integer({ min: -300, max: 3_000 }),
    rank: fc.integer({ min: 0, max: 2 }),
    tie: fc.integer({ min: 0, max: 2 }),
  });
  fc.assert(
    fc.property(
      fc.array(task),
      fc.array(task),
      fc.integer({ min: -300, max: 3_000 }),
      (first, then, nowMs) => {
        const all = [...first, ...then];
        const tasks = new DueTasks({
          atMs: (due) => all[due >> TASK_BITS]!.atMs,
          tie: (due) => all[due >> TASK_BITS]!.tie,
        });
        const add = (i: number): void => tasks.add((i << TASK_BITS) | all[i]!.rank, all[i]!.atMs);
        const keyOf = (due: number): string => {
          const { atMs, rank, tie } = all[due >> TASK_BITS]!;
          return `${atMs} ${rank} ${tie}`;
        };
        const taken: string[] = [];
        const takeUpTo = (limitMs: number): void => {
          while (tasks.nextMs(limitMs) <= limitMs) taken.push(keyOf(tasks.take()));
        };
        const sorted = (list: typeof first): string[] =>
          list
            .toSorted((a, b) => a.atMs - b.atMs || a.rank - b.rank || a.tie - b.tie)
            .map(({ atMs, rank, tie }) => `${atMs} ${rank} ${tie}`);
        for (const i of first.keys()) add(i);
        takeUpTo(nowMs);
        assert.deepEqual(taken, sorted(first.filter((t) => t.atMs <= nowMs)));
        for (const i of then.keys()) add(first.length + i);
        taken.length = 0;
        takeUpTo(3_000);
        assert.deepEqual(taken, sorted([...first.filter((t) => t.atMs > nowMs), ...then]));
        assert.equal(tasks.size, 0);
      },
    ),
    { seed: 4, numRuns: 200 },
  );
});

const entryOf = (id: string, timeMs: number) => {
  const bytes = Buffer.from(`${id}item`);
  return {
    timeMs,
    bytes,
    idAt: 0,
    idLength: id.length,
    otherAt: 0,
    otherLength: 0,
    itemAt: id.length,
    itemLength: 4,
    itemHash: hashBytes(bytes, id.length, 4),
  };
};
function latest(users: Users, user: number, beforeMs: number, length: number): string[] {
  const { lists } = users;
  lists.open(users.columns.of.buys[user]!);
  const found: string[] = [];
  for (let i = lists.countBefore(beforeMs) - 1; i >= 0 && found.length < length; i--) {
    const entry = lists.entry(i);
    const at = lists.idAt(entry);
    found.push(Buffer.from(lists.bytes.subarray(at, at + lists.idLength(entry))).toString());
  }
  return found;
}

test('numbers by their second come second by second, each once, also those that come after their second', () => {
  const step = fc.record({ atMs: fc.integer({ min: -3_000, max: 9_000 }), isTaken: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const buckets = new TimeBuckets();
      let held: { atMs: number; value: number }[] = [];
      for (const [value, { atMs, isTaken }] of steps.entries()) {
        buckets.add(bucketOf(atMs), value);
        held.push({ atMs, value });
        if (!isTaken) continue;
        const { beginsMs, endsMs } = buckets;
        const isFirst = (h: { atMs: number }): boolean => h.atMs < endsMs;
        assert.ok(held.every((h) => h.atMs >= beginsMs));
        const told: number[] = [];
        assert.equal(
          buckets.take((v) => told.push(v)),
          bucketOf(beginsMs),
        );
        assert.deepEqual(
          told,
          held.filter(isFirst).map((h) => h.value),
        );
        held = held.filter((h) => !isFirst(h));
      }
      assert.equal(buckets.isEmpty, held.length === 0);
    }),
    { seed: 8, numRuns: 200 },
  );
});

test('pruned histories answer every look-up from the cutoff on as unpruned ones do', () => {
  const event = fc.record({ timeMs: fc.integer({ min: 0, max: 300 }), id: fc.integer({ min: 0, max: 40 }) });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 200 }), fc.integer({ min: 1, max: 3 }), (events, length) => {
      const users = new Users(new BlockArena(), length);
      const user = users.add(Buffer.from('u'), 0, 1, 1);
      const all = new Map<string, { id: string; timeMs: number }>();
      let cutoffMs = 0;
      for (const { timeMs, id } of events) {
        // Time goes on, and what comes is not older than the cutoff.
        cutoffMs += 2;
        const one = { id: String(id).padStart(2, '0'), timeMs: cutoffMs + timeMs };
        users.remember(user, 'buys', entryOf(one.id, one.timeMs), () => cutoffMs);
        all.set(`${one.timeMs} ${one.id}`, one);
        for (const beforeMs of [cutoffMs, cutoffMs + 100, cutoffMs + 400]) {
          const expected = [...all.values()]
            .filter((e) => e.timeMs < beforeMs)
            .sort((a, b) => b.timeMs - a.timeMs || (a.id < b.id ? 1 : -1))
            .slice(0, length)
            .map((e) => e.id);
          assert.deepEqual(latest(users, user, beforeMs, length), expected);
        }
      }
    }),
    { seed: 3, numRuns: 60 },
  );
});

test('users not seen for long are forgotten with what they did, others and those with exposures stay', () => {
  const users = new Users(new BlockArena(), 2);
  const [gone, shown, seen] = ['gone', 'shown', 'seen'].map((id, i) => {
    const user = users.add(Buffer.from(id), 0, id.length, i);
    users.remember(user, 'buys', entryOf('x', id === 'seen' ? 500 : 10), () => 0);
    return user;
  });
  users.columns.of.firstExposure[shown!] = 3;
  users.forgetBefore(400, 10);
  assert.deepEqual(
    [gone, shown, seen].map((user) => users.columns.isUsed(user!)),
    [false, true, true],
  );
  assert.equal(users.numEntries, 2);
  assert.equal(users.find(Buffer.from('gone'), 0, 4, 0), -1);
});

test('numbers written as Avro are read back by it and by us, and what is cut off is not', () => {
  const long = avroType('Click'); // any schema would do: its longs are those of eventTimeMs
  fc.assert(
    fc.property(fc.maxSafeInteger(), (value) => {
      const writer = new AvroWriter();
      writer.long(value);
      const reader = new AvroReader().on(writer.bytes, 0, writer.at);
      if (value > -(2 ** 52)) {
        assert.equal(reader.long(), value);
        assert.ok(reader.ok && reader.at === writer.at);
      }
      if (writer.at > 1) {
        const cut = new AvroReader().on(writer.bytes, 0, writer.at - 1);
        cut.long();
        assert.equal(cut.ok, false);
      }
      const click = { actionId: '', exposureId: null, userId: '', itemId: '', eventTimeMs: value };
      const bytes = long.toBuffer(click);
      assert.ok(value < 0 || bytes.subarray(4).equals(writer.bytes.subarray(0, writer.at)));
    }),
    { seed: 5, numRuns: 300 },
  );
});

test('fields are found where the codec has them, and cut-off or longer bytes are refused', () => {
  const exposure = new ExposureFields();
  const action = new ActionFields();
  const text = (bytes: Uint8Array, at: number, length: number): string =>
    Buffer.from(bytes.subarray(at, at + length)).toString();
  for (const { topic, value } of makeTraffic({
    seed: 6,
    numRequests: 60,
    startMs: 1e12,
    unnamedShare: 0.5,
  })) {
    const schema = topic === 'exposures' ? 'Exposure' : topic === 'clicks' ? 'Click' : 'Buy';
    const bytes = avroType(schema).toBuffer(value);
    const read = (b: Buffer, end: number): boolean =>
      topic === 'exposures' ? exposure.read(b, 0, end) : action.read(b, 0, end, topic === 'buys');
    for (let end = 0; end < bytes.length; end++)
      assert.equal(read(bytes, end), false, `${topic} cut at ${end}`);
    assert.equal(read(Buffer.concat([bytes, Buffer.from([0])]), bytes.length + 1), false);
    assert.equal(read(bytes, bytes.length), true);
    const fields = topic === 'exposures' ? exposure : action;
    assert.equal(text(bytes, fields.userAt, fields.userLength), value.userId);
    assert.equal(text(bytes, fields.itemAt, fields.itemLength), value.itemId);
    assert.equal(fields.timeMs, value.eventTimeMs);
    if (topic === 'exposures') {
      assert.equal(text(bytes, exposure.requestAt, exposure.requestLength), value.requestId);
      assert.equal(exposure.requestTimeMs, value.requestTimeMs);
    } else if (value.exposureId === null) assert.equal(action.exposureLength, -1);
    else assert.equal(text(bytes, action.exposureAt, action.exposureLength), value.exposureId);
  }
  const broken = { ...makeTraffic({ seed: 6, numRequests: 1, startMs: 1e12 })[0]!.value };
  for (const wrong of [
    { requestFeatures: { ints: [], floats: [1, Number.NaN] } },
    { requestFeatures: { ints: [], floats: [Number.NEGATIVE_INFINITY] } },
    { position: -1 },
    { priceCents: -5 },
    { watchMs: -1 },
    { itemId: '' },
    { requestId: 'x'.repeat(600) },
  ]) {
    const bytes = avroType('Exposure').toBuffer({ ...broken, ...wrong });
    assert.equal(exposure.read(bytes, 0, bytes.length), false, JSON.stringify(wrong).slice(0, 60));
  }
});

test('lists of numbers give what was added in its order, and their memory is used again', () => {
  const step = fc.record({ list: fc.nat({ max: 5 }), value: fc.nat(), isTaken: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const lists = new NumberLists();
      const known = new Map<number, { list: number; values: number[] }>();
      for (const { list: name, value, isTaken } of steps) {
        const of = known.get(name) ?? { list: NO_NUMBERS, values: [] };
        known.set(name, of);
        if (isTaken && of.values.length > 20) {
          const taken: number[] = [];
          lists.take(of.list, (n) => taken.push(n));
          assert.deepEqual(taken, of.values);
          known.delete(name);
        } else {
          of.list = lists.add(of.list, value);
          of.values.push(value);
        }
      }
      for (const { list, values } of known.values()) {
        const taken: number[] = [];
        lists.take(list, (n) => taken.push(n));
        assert.deepEqual(taken, values);
      }
      const { sizeBytes } = lists;
      let again = NO_NUMBERS;
      for (let i = 0; i < 200; i++) again = lists.add(again, i);
      assert.ok(lists.sizeBytes <= Math.max(sizeBytes, 17 * 64), 'freed pieces are used first');
    }),
    { seed: 4, numRuns: 100 },
  );
});
