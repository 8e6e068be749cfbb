import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BatchDrawer, type Drawn } from '../src/stages/draw-batch.ts';

/** A partition as a list of records: true is selected, false is left out. */
type Log = boolean[];
interface Fetch {
  partition: number;
  records: number;
}

const logs = fc.array(fc.array(fc.boolean(), { maxLength: 30 }), { minLength: 1, maxLength: 4 });
const name = (partition: number, offset: number): string => `${partition}:${offset}`;
const positionsOf = (all: readonly Log[]) =>
  all.map((log, partition) => ({ partition, offset: 0, end: log.length }));

/** Feeds fetches of the given sizes, drawing after each; the rest of the logs comes last, then partial batches. */
function drawAll(all: readonly Log[], batchSize: number, fetches: readonly Fetch[]): Drawn<string>[] {
  const drawer = new BatchDrawer<string>(batchSize, positionsOf(all));
  const read = all.map(() => 0);
  const drawn: Drawn<string>[] = [];
  const feed = (partition: number, records: number): void => {
    const log = all[partition]!;
    const from = read[partition]!;
    const to = Math.min(log.length, from + records);
    read[partition] = to;
    const selected = [];
    for (let offset = from; offset < to; offset++)
      if (log[offset]) selected.push({ offset, sample: name(partition, offset) });
    drawer.add(partition, selected, to, log.length);
    for (let batch = drawer.draw(); batch; batch = drawer.draw()) drawn.push(batch);
  };
  for (const { partition, records } of fetches) feed(partition % all.length, records);
  for (let p = 0; p < all.length; p++) feed(p, all[p]!.length);
  for (let batch = drawer.drawPartial(); batch; batch = drawer.drawPartial()) drawn.push(batch);
  return drawn;
}

/** The obvious form: everything is there, one from each partition in turn. */
function reference(all: readonly Log[], batchSize: number): string[][] {
  const queues = all.map((log, p) => log.flatMap((selected, offset) => (selected ? [{ p, offset }] : [])));
  const order: { p: number; offset: number }[] = [];
  while (queues.some((q) => q.length > 0))
    for (const queue of queues) {
      const next = queue.shift();
      if (next) order.push(next);
    }
  const batches: string[][] = [];
  for (let i = 0; i < order.length; i += batchSize)
    batches.push(
      order
        .slice(i, i + batchSize)
        .sort((a, b) => a.p - b.p || a.offset - b.offset)
        .map(({ p, offset }) => name(p, offset)),
    );
  return batches;
}

const fetchPlan = fc.array(fc.record({ partition: fc.nat(3), records: fc.integer({ min: 1, max: 9 }) }), {
  maxLength: 40,
});

test('batches of a log that does not grow are the same however the fetches arrive', () => {
  fc.assert(
    fc.property(logs, fc.integer({ min: 1, max: 7 }), fetchPlan, (all, batchSize, fetches) => {
      assert.deepEqual(
        drawAll(all, batchSize, fetches).map((batch) => batch.samples),
        reference(all, batchSize),
      );
    }),
    { seed: 11, numRuns: 300 },
  );
});

test('ranges follow one another and hold every selected sample exactly once', () => {
  fc.assert(
    fc.property(logs, fc.integer({ min: 1, max: 7 }), fetchPlan, (all, batchSize, fetches) => {
      const at = all.map(() => 0);
      for (const { ranges, samples } of drawAll(all, batchSize, fetches)) {
        const inside: string[] = [];
        for (const { partition, from, to } of ranges) {
          assert.equal(from, at[partition]);
          at[partition] = to;
          for (let o = from; o < to; o++) if (all[partition]![o]) inside.push(name(partition, o));
        }
        assert.deepEqual(samples, inside);
      }
    }),
    { seed: 12, numRuns: 300 },
  );
});

test('a manifest gives its batch again, and the batches after it do not change', () => {
  fc.assert(
    fc.property(
      logs,
      fc.integer({ min: 1, max: 5 }),
      fetchPlan,
      fc.nat(10),
      fc.nat(10),
      (all, batchSize, fetches, savedAfter, replayedAfter) => {
        const before = drawAll(all, batchSize, fetches);
        const saved = before.slice(0, savedAfter);
        const replayed = before.slice(saved.length, saved.length + replayedAfter);
        const from = saved.at(-1);
        const drawer = new BatchDrawer<string>(
          batchSize,
          all.map((log, partition) => ({
            partition,
            offset: from?.ranges[partition]?.to ?? 0,
            end: log.length,
          })),
          from?.cursor,
        );
        for (const [p, log] of all.entries()) {
          const start = from?.ranges[p]?.to ?? 0;
          const selected = log.flatMap((yes, offset) =>
            yes && offset >= start ? [{ offset, sample: name(p, offset) }] : [],
          );
          drawer.add(p, selected, log.length, log.length);
        }
        for (const { ranges, cursor, samples } of replayed) {
          assert.ok(drawer.has(ranges));
          assert.deepEqual(drawer.drawRange(ranges, cursor).samples, samples);
        }
        for (const expected of before.slice(saved.length + replayed.length))
          assert.deepEqual(drawer.drawPartial()?.samples, expected.samples);
        assert.equal(drawer.drawPartial(), null);
      },
    ),
    { seed: 13, numRuns: 300 },
  );
});

test('a partition that was not fetched yet is waited for, one at its end is passed over', () => {
  const drawer = new BatchDrawer<string>(2, [
    { partition: 0, offset: 5, end: 6 },
    { partition: 1, offset: 0, end: 1 },
  ]);
  drawer.add(0, [{ offset: 5, sample: 'a' }], 6, 6);
  assert.equal(drawer.draw(), null);
  assert.equal(drawer.drawPartial(), null);
  assert.equal(drawer.openSamples, 1);
  drawer.add(1, [], 1, 1);
  assert.deepEqual(drawer.drawPartial(), {
    samples: ['a'],
    ranges: [
      { partition: 0, from: 5, to: 6 },
      { partition: 1, from: 0, to: 1 },
    ],
    cursor: 1,
  });
});

test('a manifest that does not begin where the last batch ended is refused', () => {
  const drawer = new BatchDrawer<string>(2, [{ partition: 0, offset: 5, end: 9 }]);
  drawer.add(0, [], 9, 9);
  assert.throws(() => drawer.drawRange([{ partition: 0, from: 4, to: 7 }], 0), /begins at 4, expected 5/);
  assert.throws(() => drawer.drawRange([{ partition: 0, from: 5, to: 10 }], 0), /not fetched yet/);
  assert.throws(() => drawer.add(0, [], 8, 9), /backwards/);
  assert.throws(() => drawer.add(3, [], 8, 9), /No partition 3/);
});
