import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributionWindows, lastTouch, ReplayMarks } from '@onemall/event-time';
import fc from 'fast-check';

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
