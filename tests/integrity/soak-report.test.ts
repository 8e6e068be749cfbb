import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySlope, pausesAfter } from './soak-report.ts';

test('a pause is the longest gap of any partition from a change to the end of its quiet time', () => {
  const left = new Map([
    [0, [0, 100, 200, 5_200, 5_300, 90_000]],
    [1, [0, 150, 300, 450, 600]],
  ]);
  const pauseOf = (beganMs: number, quietUntilMs: number) => {
    const [only] = pausesAfter([{ what: 'one more', beganMs, quietUntilMs }], left);
    return only!;
  };
  // ends within the quiet time, and had begun before the change
  assert.deepEqual(pauseOf(250, 5_250), {
    what: 'one more',
    beganMs: 250,
    quietUntilMs: 5_250,
    pauseMs: 5_000,
    partition: 0,
  });
  // goes on after the quiet time: only what lies in it is the change's
  assert.equal(pauseOf(5_250, 25_250).pauseMs, 19_950);
  assert.equal(pauseOf(250, 5_400).pauseMs, 5_000);
  // the gap of 5 s was over before the change
  assert.equal(pauseOf(5_250, 5_290).pauseMs, 90);
});

test('the slope of memory leaves the warm-up out', () => {
  const grows = Array.from({ length: 100 }, (_, i) => ({
    atMs: i * 10_000,
    rssBytes: i < 30 ? i * 1e6 : 30e6 + (i - 30) * 1_000,
  }));
  assert.ok(Math.abs(memorySlope(grows)! - 360_000) < 1);
  assert.equal(memorySlope(grows.slice(0, 4)), null);
});
