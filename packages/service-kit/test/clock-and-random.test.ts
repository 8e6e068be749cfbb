import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hashFraction, ManualClock, SeededRandom, systemClock } from '../src/index.ts';

test('a manual clock wakes its sleepers in the order of their times', async () => {
  const clock = new ManualClock(1_000);
  const woken: number[] = [];
  const sleeps = [30, 10, 20].map((ms) => clock.sleep(ms).then(() => woken.push(ms)));
  clock.advance(9);
  await Promise.resolve();
  assert.deepEqual(woken, []);
  clock.advance(11);
  await Promise.all([sleeps[1], sleeps[2]]);
  assert.deepEqual(woken, [10, 20]);
  clock.advance(100);
  await Promise.all(sleeps);
  assert.deepEqual(woken, [10, 20, 30]);
  assert.equal(clock.nowMs(), 1_120);
});

for (const [name, clock] of [
  ['the system clock', systemClock],
  ['a manual clock', new ManualClock()],
] as const)
  test(`${name}: a sleep ends with the reason of its signal`, async () => {
    const stop = new AbortController();
    const sleep = clock.sleep(3_600_000, stop.signal);
    stop.abort(new Error('stopping'));
    await assert.rejects(sleep, /stopping/);
    await assert.rejects(clock.sleep(1, stop.signal), /stopping/, 'also when it was aborted before');
  });

test('the same seed gives the same numbers, also after save and restore; another seed others', () => {
  const first = (random: SeededRandom): number[] => Array.from({ length: 20 }, () => random.uint32());
  assert.deepEqual(first(new SeededRandom(5)), first(new SeededRandom(5)));
  assert.notDeepEqual(first(new SeededRandom(5)), first(new SeededRandom(6)));
  const random = new SeededRandom(5);
  random.normal();
  const restored = SeededRandom.restore(random.save());
  assert.deepEqual(first(restored), first(random));
});

test('numbers of a fixed seed are the same on every machine', () => {
  const random = new SeededRandom(1);
  assert.deepEqual([random.uint32(), random.uint32(), random.uint32()], [2442144158, 3238099751, 3819917871]);
  assert.equal(hashFraction('user-1'), 0.4670340372249484);
});

test('uniform, normal and exponential have the moments they promise', () => {
  const random = new SeededRandom(3);
  const n = 50_000;
  const mean = (draw: () => number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += draw();
    return sum / n;
  };
  assert.ok(Math.abs(mean(() => random.next()) - 0.5) < 0.01);
  assert.ok(Math.abs(mean(() => random.normal())) < 0.02);
  assert.ok(Math.abs(mean(() => random.normal() ** 2) - 1) < 0.03);
  assert.ok(Math.abs(mean(() => random.exponential(4)) - 4) < 0.1);
});

test('int stays below its bound, pick picks what is there, shuffle loses nothing', () => {
  fc.assert(
    fc.property(fc.nat(), fc.array(fc.integer(), { minLength: 1, maxLength: 50 }), (seed, list) => {
      const random = new SeededRandom(seed);
      const i = random.int(list.length);
      assert.ok(Number.isInteger(i) && i >= 0 && i < list.length);
      assert.ok(list.includes(random.pick(list)));
      assert.deepEqual(
        random.shuffle([...list]).sort((a, b) => a - b),
        [...list].sort((a, b) => a - b),
      );
    }),
    { seed: 1 },
  );
  assert.throws(() => new SeededRandom(1).pick([]), /empty/);
});

test('hashFraction spreads ids evenly and keeps each on its side', () => {
  let below = 0;
  for (let i = 0; i < 20_000; i++) if (hashFraction(`request-${i}`) < 0.02) below++;
  assert.ok(Math.abs(below / 20_000 - 0.02) < 0.005, `${below} of 20000 below 0.02`);
  assert.equal(hashFraction('x', 1), hashFraction('x', 1));
  assert.notEqual(hashFraction('x', 1), hashFraction('x', 2));
});
