import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  assign,
  type Codebook,
  CodebookEncoder,
  canMatch,
  matchCodebook,
  matchedCodes,
  movedShares,
  readCodebook,
  readContinues,
  trainCodebook,
  type Vectors,
  writeCodebook,
  writeContinues,
} from '../src/index.ts';
import { trainInThread } from '../src/training-thread.ts';
import { clusters } from './reference.ts';

const DIM = 8;
const drawn = (seed: number, numVectors = 900) =>
  clusters(new SeededRandom(seed), { numVectors, dim: DIM, numClusters: 60, spread: 0.3 });
const options = {
  scenario: 's',
  version: 1,
  numCodes: [16, 16, 16] as const,
  lastLevel: 'fsq' as const,
  cutoffMs: 0,
  seed: 4,
};
/** The catalogue some days later: items have moved a little and new ones have come. */
const drifted = (): Vectors => {
  const random = new SeededRandom(8);
  const before = drawn(1);
  const more = drawn(1, 1_000).data.slice(900 * DIM);
  const data = Float32Array.from([...before.data, ...more], (v) => v + 0.05 * random.normal());
  return { data, numVectors: 1_000, dim: DIM };
};

function* permutations(n: number, taken: number[] = []): Generator<number[]> {
  if (taken.length === n) yield taken;
  for (let i = 0; i < n; i++) if (!taken.includes(i)) yield* permutations(n, [...taken, i]);
}

test('assign finds the cheapest assignment', () => {
  const square = fc
    .integer({ min: 1, max: 6 })
    .chain((n) =>
      fc.array(fc.nat(30), { minLength: n * n, maxLength: n * n }).map((costs) => ({ n, costs })),
    );
  fc.assert(
    fc.property(square, ({ n, costs }) => {
      const cost = (columns: ArrayLike<number>) =>
        Array.from(columns).reduce((sum, column, row) => sum + costs[row * n + column]!, 0);
      const columns = assign(Float64Array.from(costs), n);
      assert.equal(new Set(columns).size, n);
      assert.equal(cost(columns), Math.min(...[...permutations(n)].map(cost)));
    }),
    { seed: 31, numRuns: 80 },
  );
});

test('codes in another order get their old numbers back', async () => {
  const before = await trainCodebook(drawn(1), { ...options, lastLevel: 'kmeans' });
  const random = new SeededRandom(2);
  const shuffled: Codebook = {
    ...before,
    version: 2,
    levels: before.levels.map((level) => {
      assert.ok(level.kind === 'kmeans');
      const order = random.shuffle(Array.from({ length: level.numCodes }, (_, i) => i));
      const centroids = Float32Array.from(
        order.flatMap((k) => [...level.centroids.subarray(k * DIM, (k + 1) * DIM)]),
      );
      return { ...level, centroids };
    }),
  };
  assert.notDeepEqual(shuffled.levels, before.levels);
  const matched = matchCodebook(before, shuffled);
  assert.deepEqual(matched, { ...before, version: 2 });
  const [old, fresh, lost] = await Promise.all(
    [before, matched, shuffled].map((codebook) => CodebookEncoder.open(codebook)),
  );
  assert.deepEqual(await movedShares(old!, fresh!, drawn(1)), { byLevel: [0, 0, 0], any: 0 });
  assert.ok((await movedShares(old!, lost!, drawn(1))).any > 0.9);
});

test('a version that begins from the one before moves fewer items than one trained anew', async () => {
  const before = await trainCodebook(drawn(1), options);
  const anew = matchCodebook(before, await trainCodebook(drifted(), { ...options, version: 2, seed: 5 }));
  const { files, moved } = await trainInThread({
    ...options,
    vectors: drifted(),
    version: 2,
    seed: 5,
    previous: writeCodebook(before),
  });
  const rolled = readCodebook(files);
  assert.equal(rolled.version, 2);
  const [old, cold, warm] = await Promise.all(
    [before, anew, rolled].map((codebook) => CodebookEncoder.open(codebook)),
  );
  assert.deepEqual(await movedShares(old!, warm!, drifted()), moved);
  const byCold = await movedShares(old!, cold!, drifted());
  assert.ok(moved!.byLevel[0]! < 0.1, String(moved!.byLevel));
  assert.ok(moved!.any < 0.7 * byCold.any, `${moved!.any} against ${byCold.any}`);
});

test('a version of another size or kind begins anew and has nothing to compare', async () => {
  const before = await trainCodebook(drawn(1), options);
  for (const change of [{ numCodes: [16, 16, 32] as const }, { lastLevel: 'kmeans' as const }]) {
    const { files, moved } = await trainInThread({
      ...options,
      ...change,
      vectors: drifted(),
      previous: writeCodebook(before),
    });
    assert.equal(moved, null);
    assert.equal(canMatch(before, readCodebook(files)), false);
  }
});

test('a code goes on where its nearest old centroid has its number; the files say which do', async () => {
  const before = await trainCodebook(drawn(1), { ...options, lastLevel: 'kmeans' });
  const [first, ...others] = before.levels;
  assert.ok(first?.kind === 'kmeans');
  // Code 3 means something else now, code 5 has come nearer to old code 6 than to its own.
  const centroids = first.centroids.slice();
  centroids.subarray(3 * DIM, 4 * DIM).set(first.centroids.subarray(9 * DIM, 10 * DIM));
  centroids.subarray(5 * DIM, 6 * DIM).set(first.centroids.subarray(6 * DIM, 7 * DIM));
  const after: Codebook = { ...before, version: 2, levels: [{ ...first, centroids }, ...others] };
  const match = await matchedCodes(before, after);
  const same = Int32Array.from({ length: 16 }, (_, code) => code);
  assert.deepEqual(match[0], same.with(3, -1).with(5, -1));
  assert.deepEqual([match[1], match[2]], [same, same]);
  const other = await trainCodebook(drawn(1), { ...options, numCodes: [8, 8, 8] });
  assert.deepEqual(
    (await matchedCodes(before, other)).map((level) => level.every((code) => code === -1)),
    [true, true, true],
  );

  const files = new Map([...writeCodebook(after), writeContinues({ version: 1, match })]);
  assert.deepEqual(readContinues(files), { version: 1, match });
  assert.deepEqual(readCodebook(files), after);
  assert.equal(readContinues(writeCodebook(after)), null);
  files.set('continues.json', Buffer.from('{"version":1,"match":[[0],[0],[0]]}'));
  assert.throws(
    () => readContinues(files),
    /expected a version and one old code, or -1, for each of 16, 16, 16/,
  );
});
