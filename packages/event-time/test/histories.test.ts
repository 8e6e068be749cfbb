import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributionWindows, lastTouch, ReplayMarks, TimerQueue, UserHistories } from '@onemall/event-time';
import fc from 'fast-check';

const entry = (id: string, timeMs: number) => ({
  id,
  itemId: `i${id}`,
  timeMs,
  exposureId: null,
  requestId: null,
});

test('histories give the latest H before a moment, newest first, and drop copies', () => {
  const histories = new UserHistories(2);
  for (const [id, timeMs] of [
    ['a', 10],
    ['c', 30],
    ['b', 20],
    ['c', 30],
  ] as const)
    histories.add('u', 'clicks', entry(id, timeMs), () => 0);
  assert.deepEqual(
    histories.latest('u', 'clicks', 31).map((e) => e.id),
    ['c', 'b'],
  );
  assert.deepEqual(
    histories.latest('u', 'clicks', 30).map((e) => e.id),
    ['b', 'a'],
  );
  assert.deepEqual(
    histories.latest('u', 'clicks', 99, (e) => e.id === 'c').map((e) => e.id),
    ['b', 'a'],
  );
  assert.deepEqual(histories.latest('nobody', 'buys', 99), []);
  assert.equal(histories.numEntries, 3);
});

test('pruned histories answer every look-up from the cutoff on as unpruned ones do', () => {
  const event = fc.record({ timeMs: fc.integer({ min: 0, max: 300 }), id: fc.integer({ min: 0, max: 40 }) });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 200 }), fc.integer({ min: 0, max: 3 }), (events, length) => {
      const histories = new UserHistories(length);
      const all = new Map<string, { id: string; timeMs: number }>();
      let cutoffMs = 0;
      for (const { timeMs, id } of events) {
        // Time goes on, and what comes is not older than the cutoff.
        cutoffMs += 2;
        const at = entry(String(id).padStart(2, '0'), cutoffMs + timeMs);
        histories.add('u', 'buys', at, () => cutoffMs);
        all.set(`${at.timeMs} ${at.id}`, at);
        for (const beforeMs of [cutoffMs, cutoffMs + 100, cutoffMs + 400]) {
          const expected = [...all.values()]
            .filter((e) => e.timeMs < beforeMs)
            .sort((a, b) => b.timeMs - a.timeMs || (a.id < b.id ? 1 : -1))
            .slice(0, length)
            .map((e) => e.id);
          assert.deepEqual(
            histories.latest('u', 'buys', beforeMs).map((e) => e.id),
            expected,
          );
        }
      }
    }),
    { seed: 3, numRuns: 100 },
  );
});

test('timers come by time, then rank, then tie, then order of adding', () => {
  const timer = fc.record({
    atMs: fc.integer({ min: 0, max: 20 }),
    rank: fc.integer({ min: 0, max: 2 }),
    tie: fc.integer({ min: 0, max: 2 }),
  });
  fc.assert(
    fc.property(fc.array(timer), fc.integer({ min: 0, max: 20 }), (timers, nowMs) => {
      const queue = new TimerQueue<number>();
      for (const [i, t] of timers.entries()) queue.add(t.atMs, t.rank, t.tie, i);
      const taken: number[] = [];
      for (let t = queue.take(nowMs); t; t = queue.take(nowMs)) taken.push(t.task);
      const expected = timers
        .map((t, i) => ({ ...t, i }))
        .filter((t) => t.atMs <= nowMs)
        .sort((a, b) => a.atMs - b.atMs || a.rank - b.rank || a.tie - b.tie || a.i - b.i)
        .map((t) => t.i);
      assert.deepEqual(taken, expected);
      assert.equal(queue.size, timers.length - taken.length);
    }),
    { seed: 4, numRuns: 200 },
  );
});

test('a replay from the marked offset misses no record that is still needed, and starts at most a mark early', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 1_000 }), { maxLength: 500 }),
      fc.integer({ min: 0, max: 1_000 }),
      (needed, atMs) => {
        const marks = new ReplayMarks();
        for (const [offset, untilMs] of needed.entries()) marks.see(offset, untilMs);
        const restore = marks.restoreOffset(atMs, needed.length);
        const first = needed.findIndex((untilMs) => untilMs > atMs);
        if (first < 0) assert.equal(restore, needed.length);
        else
          assert.ok(
            restore <= first && first - restore < 64,
            `restores at ${restore}, first needed ${first}`,
          );
      },
    ),
    { seed: 5, numRuns: 200 },
  );
});

const windows = new AttributionWindows({
  scenarios: {
    card: { clickWindowMs: 100, buyWindowMs: 300 },
    video: { clickWindowMs: 200, buyWindowMs: 50 },
  },
  graceMs: 40,
  outOfOrdernessMs: 10,
});

test('windows: bounds belong to them, closing takes the larger one of the scenario', () => {
  assert.equal(windows.closesAtMs('card', 1_000), 1_340);
  assert.equal(windows.closesAtMs('video', 1_000), 1_240);
  assert.equal(windows.contains('card', 1_000, 'CLICK', 990), true);
  assert.equal(windows.contains('card', 1_000, 'CLICK', 989), false);
  assert.equal(windows.contains('card', 1_000, 'CLICK', 1_100), true);
  assert.equal(windows.contains('card', 1_000, 'CLICK', 1_101), false);
  assert.equal(windows.contains('card', 1_000, 'BUY', 1_300), true);
  assert.equal(windows.knows('radio'), false);
  assert.throws(
    () => windows.closesAtMs('radio', 0),
    /No attribution windows for scenario radio: known are card, video/,
  );
});

test('an action outlives every exposure it could join, and a known exposure every action it could have', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('card', 'video'),
      fc.integer({ min: -400, max: 400 }),
      (scenario, delayMs) => {
        const exposureMs = 10_000;
        for (const kind of ['CLICK', 'BUY'] as const) {
          if (!windows.contains(scenario, exposureMs, kind, exposureMs + delayMs)) continue;
          const endsMs = windows.actionEndsAtMs(exposureMs + delayMs);
          assert.ok(endsMs >= windows.closesAtMs(scenario, exposureMs));
          assert.ok(exposureMs + windows.knownSpanMs >= endsMs);
        }
      },
    ),
    { seed: 2 },
  );
});

test('last touch takes the latest exposure that is not after the action and has it in its window', () => {
  const at = (exposureId: string, timeMs: number, scenario = 'card') => ({ exposureId, timeMs, scenario });
  const all = [at('a', 900), at('b', 950), at('c', 950), at('d', 1_001)];
  assert.equal(lastTouch(windows, all, 'CLICK', 1_000)?.exposureId, 'c');
  assert.equal(lastTouch(windows, all, 'CLICK', 1_050)?.exposureId, 'd');
  assert.equal(lastTouch(windows, all, 'CLICK', 1_200), undefined);
  assert.equal(lastTouch(windows, all, 'BUY', 1_200)?.exposureId, 'd');
});
