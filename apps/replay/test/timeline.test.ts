import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExternalSort } from '../src/adapters/external-sort.ts';
import { TimeSpreader } from '../src/stages/spread-times.ts';
import { fixedTimeline, rateTimeline, TimeSampler } from '../src/stages/timeline.ts';
import { temporaryFolder } from './fixtures.ts';

const sampled = (times: readonly number[]): TimeSampler => {
  const sampler = new TimeSampler();
  for (const t of times) sampler.add(t);
  return sampler;
};

test('a rate timeline never falls and gives the asked rate over the whole log', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 1_000_000 }), { minLength: 100, maxLength: 400 }),
      fc.integer({ min: 1, max: 5_000 }),
      (unsorted, rate) => {
        const times = unsorted.toSorted((a, b) => a - b);
        const timeline = rateTimeline(sampled(times), rate);
        const offsets = times.map((t) => timeline.offsetMs(t));
        for (let i = 1; i < offsets.length; i++) assert.ok(offsets[i]! >= offsets[i - 1]! - 1e-6);
        const seconds = (offsets.at(-1)! - offsets[0]!) / 1000;
        assert.ok(Math.abs((seconds * rate) / times.length - 1) < 0.1, `${seconds} s at ${rate}/s`);
      },
    ),
    { seed: 3 },
  );
});

test('nights do not stall an even rate: a log of two busy hours with a silent day between', () => {
  const busy = (start: number) => Array.from({ length: 3_600 }, (_, i) => start + i * 1_000);
  const times = [...busy(0), ...busy(86_400_000)];
  const timeline = rateTimeline(sampled(times), 100);
  assert.ok(timeline.offsetMs(times.at(-1)!) < 75_000);
  // inside a busy hour one second of the log lasts a 100th of a second
  assert.ok(Math.abs(timeline.offsetMs(1_800_000) - 18_000) < 200);
});

test('events of one moment leave together; a long log keeps a small picture', () => {
  assert.equal(rateTimeline(sampled([5, 5, 5]), 10).offsetMs(5), 0);
  const sampler = sampled(Array.from({ length: 200_000 }, (_, i) => i));
  assert.equal(sampler.count, 200_000);
  assert.ok(sampler.times.length <= 32_768);
  assert.ok(Math.abs(rateTimeline(sampler, 1_000).offsetMs(100_000) - 100_000) < 500);
});

test('a fixed speed-up divides distances', () => {
  const timeline = fixedTimeline(1_000, 50);
  assert.equal(timeline.offsetMs(1_000), 0);
  assert.equal(timeline.offsetMs(51_000), 1_000);
});

test('rows of a day are spread over it in the order of the file', () => {
  const DAY = 86_400_000;
  const spreader = new TimeSpreader('day');
  const rows = [0, DAY, 0, 0, DAY, 0];
  for (const r of rows) spreader.count(r);
  const spread = rows.map((r) => spreader.spread(r));
  assert.deepEqual(
    spread,
    [1 / 8, 1 + 1 / 4, 3 / 8, 5 / 8, 1 + 3 / 4, 7 / 8].map((d) => d * DAY),
  );
});

test('sorting through files gives the same order as in memory', async (t) => {
  const folder = await temporaryFolder(t);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 200 }),
      fc.integer({ min: 1, max: 60 }),
      async (keys, limit) => {
        const values = keys.map((key, seq) => ({ key, seq }));
        const compare = (a: { key: number; seq: number }, b: { key: number; seq: number }): number =>
          a.key - b.key || a.seq - b.seq;
        const sort = new ExternalSort(compare, limit, folder);
        for (const value of values) await sort.add(value);
        for (let round = 0; round < 2; round++) {
          const read: typeof values = [];
          for await (const batch of sort.sorted()) read.push(...batch);
          assert.deepEqual(read, values.toSorted(compare));
        }
        await sort.close();
      },
    ),
    { seed: 4, numRuns: 30 },
  );
});
