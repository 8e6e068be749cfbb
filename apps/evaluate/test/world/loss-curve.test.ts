import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lossPicture } from '../../src/world/reports/loss-picture.ts';
import { addLoss, emptyCurve, MOST_POINTS, stepsOf } from '../../src/world/training/loss-curve.ts';

test('a long training keeps few points, each the mean of its steps', () => {
  const curve = emptyCurve();
  for (let step = 1; step <= 10 * MOST_POINTS + 5; step++) addLoss(curve, step);
  // doubled at 1, 2, 4 and 8 times as many steps
  assert.equal(curve.stepsPerPoint, 16);
  const points = stepsOf(curve);
  assert.equal(points.length, (10 * MOST_POINTS) / 16);
  points.forEach(([step, loss], i) => {
    assert.equal(step, 16 * (i + 1));
    assert.equal(loss, 16 * i + 8.5);
  });
  assert.deepEqual(
    curve.newest,
    [1, 2, 3, 4, 5].map((i) => 10 * MOST_POINTS + i),
  );
});

test('models of other lengths share the picture from the left to the right', () => {
  const svg = lossPicture([
    { name: 'onemall-small', points: [1, 2, 3, 4].map((step) => [step * 500, 9 - step] as const) },
    { name: 'tiger', points: [1, 2].map((epoch) => [epoch, 10 - epoch] as const) },
  ]);
  const ends = [...svg.matchAll(/<polyline points="[^"]* ([\d.]+),[\d.]+"/g)].map(([, x]) => x);
  assert.equal(ends.length, 2);
  assert.equal(ends[0], ends[1]);
  assert.match(svg, /onemall-small/);
  assert.match(svg, /tiger/);
});
