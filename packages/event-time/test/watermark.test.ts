import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Watermark } from '@onemall/event-time';
import fc from 'fast-check';

const options = { numInputs: 3, outOfOrdernessMs: 100, inputFreshnessMs: 1_000, maxDelayMs: 500 };

/** A watermark whose three inputs gave an event each, and whose first advance has begun at 0. */
function started(more: object = {}): Watermark {
  const watermark = new Watermark({ ...options, ...more });
  for (const [input, timeMs] of [1_000, 2_000, 3_000].entries()) {
    watermark.observe(input, timeMs, 0);
    watermark.hasMore(input, -1);
  }
  watermark.advance(0);
  return watermark;
}

test('invariant 11: an input that was not fetched yet holds the watermark', () => {
  const watermark = new Watermark(options);
  watermark.observe(0, 5_000, 0);
  watermark.hasMore(0, 0);
  watermark.atEnd(2, 1);
  assert.equal(watermark.advance(2_000), 0);
  assert.equal(watermark.furthestBehind(2_000), 1, 'neither fetched nor seen at its end lately');
});

test('the watermark is the least of the inputs that hold it, less the bound', () => {
  assert.equal(started().valueMs, 900);
});

test('an input seen at its end after the last advance began holds nothing', () => {
  const watermark = started();
  watermark.atEnd(0, 5);
  watermark.hasMore(1, 5);
  watermark.hasMore(2, 5);
  assert.equal(watermark.advance(10), 1_900);
});

test('invariant 11: an end seen before the last advance began, or too long ago, proves nothing', () => {
  const before = started();
  before.atEnd(0, 0);
  before.hasMore(1, 5);
  before.hasMore(2, 5);
  assert.equal(before.holds(0, 6), true);
  const old = started();
  old.atEnd(0, 5);
  assert.equal(old.holds(0, 1_005), false);
  assert.equal(old.holds(0, 1_006), true);
});

test('invariant 11: an input whose leader stopped answering holds, however far the others are', () => {
  const watermark = started();
  for (let nowMs = 10; nowMs < 10_000; nowMs += 10) {
    watermark.observe(2, 3_000 + nowMs, nowMs);
    watermark.hasMore(2, nowMs - 1);
    watermark.atEnd(1, nowMs - 1);
    watermark.advance(nowMs);
  }
  assert.equal(watermark.valueMs, 900);
  assert.equal(watermark.furthestBehind(10_000), 0);
});

test('inputs that have more to come move it with what is taken of them, fetched anew or not', () => {
  const watermark = started();
  watermark.observe(0, 4_000, 10);
  watermark.hasMore(0, 5);
  watermark.observe(1, 2_500, 10);
  // The other two still have records of a fetch before the first advance, so that nobody asks them.
  assert.equal(watermark.advance(10), 2_400);
  watermark.atEnd(0, 8);
  assert.equal(watermark.holds(0, 11), false, 'an end that was on its way while not all had answered');
});

test('an input that answers slowly at its end does not hold for ever while others answer often', () => {
  const watermark = started();
  for (let nowMs = 10; nowMs <= 1_000; nowMs += 10) {
    watermark.observe(2, 3_000 + nowMs, nowMs);
    watermark.hasMore(2, nowMs - 5);
    // Fetches of the others wait 50 ms at the broker.
    if (nowMs % 50 === 0) for (const input of [0, 1]) watermark.atEnd(input, nowMs - 50 + 1);
    watermark.advance(nowMs);
  }
  assert.ok(watermark.valueMs > 3_500, `stands at ${watermark.valueMs}`);
});

test('at the end of all inputs it stands at the newest event, and moves by elapsed time after the delay', () => {
  const watermark = started();
  const atEnds = (nowMs: number): number => {
    for (const input of [0, 1, 2]) watermark.atEnd(input, nowMs - 1);
    return watermark.advance(nowMs);
  };
  assert.equal(atEnds(100), 2_900);
  assert.equal(atEnds(500), 2_900);
  // Silence counts up to the fetches, which left a millisecond before.
  assert.equal(atEnds(801), 3_200);
  // Old event times stay old: only the time of silence is added.
  assert.equal(atEnds(10_501), 12_900);
});

test('taken over anew it stands no further than the input furthest behind, whichever answers first', () => {
  const watermark = new Watermark(options);
  // A replay tells how far each input was read: the first one ran ahead, as a record far in the future makes it.
  for (const [input, timeMs] of [14_000, 2_000, 3_000].entries()) watermark.observe(input, timeMs, 0);
  assert.equal(watermark.advance(1), 1_900);
  watermark.hasMore(0, 2);
  watermark.hasMore(2, 2);
  assert.equal(watermark.advance(3), 1_900);
});

test('a process that slept after it saw the ends adds no silence that nobody saw', () => {
  const watermark = started();
  for (const input of [0, 1, 2]) watermark.atEnd(input, 801);
  // What came in the 900 ms since then is still in its log.
  assert.equal(watermark.advance(1_701), 3_201);
});

test('idleTimeoutMs keeps an input at its end for late producers', () => {
  const watermark = started({ idleTimeoutMs: 300 });
  watermark.atEnd(0, 5);
  assert.equal(watermark.holds(0, 299), true);
  assert.equal(watermark.holds(0, 300), false);
});

test('invariant 6: the watermark never goes back, whatever comes, and starts where it was committed', () => {
  const step = fc.record({
    input: fc.integer({ min: 0, max: 2 }),
    timeMs: fc.integer({ min: 0, max: 5_000 }),
    isEnd: fc.boolean(),
    waitMs: fc.integer({ min: 1, max: 400 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 0, max: 3_000 }), (steps, startMs) => {
      const watermark = new Watermark({ ...options, startMs });
      assert.equal(watermark.valueMs, startMs);
      let nowMs = 0;
      let last = startMs;
      for (const { input, timeMs, isEnd, waitMs } of steps) {
        nowMs += waitMs;
        if (isEnd) watermark.atEnd(input, nowMs);
        else {
          watermark.observe(input, timeMs, nowMs);
          watermark.hasMore(input, nowMs);
        }
        const value = watermark.advance(nowMs);
        assert.ok(value >= last);
        last = value;
      }
    }),
    { seed: 6, numRuns: 300 },
  );
});
