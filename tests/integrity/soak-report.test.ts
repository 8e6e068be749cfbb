import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySlope, pausesAfter } from './soak-report.ts';

test('a pause is the longest gap of any partition that a change falls into or that follows it', () => {
  const left = new Map([
    [0, [0, 100, 200, 5_200, 5_300, 90_000]],
    [1, [0, 150, 300, 450, 600]],
  ]);
  const [at250, at60000] = pausesAfter(
    [
      { atMs: 250, what: 'one more' },
      { atMs: 60_000, what: 'one less' },
    ],
    left,
  );
  assert.deepEqual([at250!.pauseMs, at250!.partition], [84_700, 0]);
  assert.deepEqual([at60000!.pauseMs, at60000!.what], [84_700, 'one less']);
  const [early] = pausesAfter([{ atMs: 120, what: 'x' }], new Map([[1, [0, 150, 300, 450, 600]]]));
  assert.equal(early!.pauseMs, 150);
});

test('the slope of memory leaves the warm-up out', () => {
  const grows = Array.from({ length: 100 }, (_, i) => ({
    atMs: i * 10_000,
    rssBytes: i < 30 ? i * 1e6 : 30e6 + (i - 30) * 1_000,
  }));
  assert.ok(Math.abs(memorySlope(grows)! - 360_000) < 1);
  assert.equal(memorySlope(grows.slice(0, 4)), null);
});
