import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  type KmeansState,
  NearestSearch,
  nearestCodes,
  QuantizationError,
  stackVectors,
  trainKmeans,
  type Vectors,
} from '../src/index.ts';
import { squaredDistance } from '../src/vectors.ts';
import { clusters, slowMeans, slowNearest } from './reference.ts';

const vectorsOf = (dim: number, min: number, max: number): fc.Arbitrary<Vectors> =>
  fc
    .array(fc.array(fc.integer({ min: -8, max: 8 }), { minLength: dim, maxLength: dim }), {
      minLength: min,
      maxLength: max,
    })
    .map(stackVectors);

describe('nearestCodes', () => {
  test('takes the same centroid as a plain search, the lowest of equals', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc
          .integer({ min: 1, max: 7 })
          .chain((dim) => fc.tuple(vectorsOf(dim, 1, 20), vectorsOf(dim, 1, 200))),
        async ([vectors, centroids]) => {
          // Twice as many as a power of two, mean zero: every sum is exact, so equal distances are equal.
          const mirrored = new Float32Array(centroids.data.length * 2);
          mirrored.set(centroids.data);
          mirrored.set(
            centroids.data.map((v) => -v),
            centroids.data.length,
          );
          const codes = await nearestCodes(vectors, mirrored);
          for (const [i, slow] of slowNearest(vectors, mirrored).entries()) assert.equal(codes[i], slow.code);
        },
      ),
      { seed: 11, numRuns: 60 },
    );
  });

  test('is as close as a plain search on real numbers, whatever their number, also far from the origin', async () => {
    for (const [numCodes, dim, offset] of [
      [21, 17, 0],
      [64, 5, 300],
      [65, 8, 0],
      [200, 12, -1e4],
    ] as const) {
      const random = new SeededRandom(5);
      const vectors = clusters(random, { numVectors: 300, dim, numClusters: 9, spread: 0.7 });
      for (let i = 0; i < vectors.data.length; i++) vectors.data[i]! += offset;
      const { centroids } = await trainKmeans(vectors, { numCodes, random });
      const codes = await nearestCodes(vectors, centroids);
      for (const [i, slow] of slowNearest(vectors, centroids).entries()) {
        const own = squaredDistance(vectors.data, i * dim, centroids, codes[i]! * dim, dim);
        assert.ok(
          own <= slow.distance + 1e-5 * dim,
          `${numCodes}, vector ${i}: ${own} against ${slow.distance}`,
        );
      }
    }
  });

  test('a vector has the same code alone and among others, at one thread and at two', async () => {
    const random = new SeededRandom(6);
    const vectors = clusters(random, { numVectors: 700, dim: 24, numClusters: 40, spread: 0.5 });
    const { centroids } = await trainKmeans(vectors, { numCodes: 128, random, maxIterations: 3 });
    const codes = await nearestCodes(vectors, centroids);
    assert.deepEqual(await nearestCodes(vectors, centroids, 2), codes);
    for (const i of [0, 255, 256, 699]) {
      const alone = stackVectors([vectors.data.subarray(i * 24, (i + 1) * 24)]);
      assert.equal((await nearestCodes(alone, centroids))[0], codes[i]);
    }
  });

  test('many centroids: exactly the one of a plain search, the lowest of equals', async () => {
    const random = new SeededRandom(8);
    const dim = 48;
    const numCodes = 700;
    const vectors = clusters(random, { numVectors: 300, dim, numClusters: 90, spread: 0.6 });
    const centroids = clusters(random, { numVectors: numCodes, dim, numClusters: 90, spread: 0.6 }).data;
    const scaled = (by: number, offset: number) => (v: number) => v * by + offset;
    const cases: [string, Vectors, Float32Array][] = [
      ['as they are', vectors, centroids],
      [
        'small ones',
        { ...vectors, data: vectors.data.map(scaled(1e-12, 0)) },
        centroids.map(scaled(1e-12, 0)),
      ],
      ['far away', { ...vectors, data: vectors.data.map(scaled(1, 500)) }, centroids.map(scaled(1, 500))],
      // One row makes the steps of the integers in its run so large that they tell nothing of the others.
      [
        'beside a huge one',
        { ...vectors, data: vectors.data.map((v, i) => (i < dim ? v * 1e4 : v)) },
        centroids,
      ],
      // All but a few lie closer together than integers, or floats, tell apart.
      ['in one heap', vectors, centroids.map((v, i) => (i < 20 * dim ? v : 1 + v * 1e-9))],
      ['at one place', vectors, centroids.map((v, i) => (i < 20 * dim ? v : 0.1))],
    ];
    for (const [name, some, among] of cases) {
      const slow = slowNearest(some, among).map(({ code }) => code);
      assert.deepEqual([...(await nearestCodes(some, among))], slow, name);
      assert.deepEqual([...(await nearestCodes(some, among, 2))], slow, `${name}, two threads`);
    }
  });

  test('searches that overlap do not touch each other', async () => {
    const random = new SeededRandom(9);
    const all = clusters(random, { numVectors: 1_112, dim: 16, numClusters: 50, spread: 0.5 });
    const search = await NearestSearch.open(all.data.subarray(0, 512 * 16), 16);
    const parts = Array.from({ length: 6 }, (_, i) => ({
      data: all.data.subarray((512 + i * 100) * 16, (612 + i * 100) * 16),
      numVectors: 100,
      dim: 16,
    }));
    const codes = await Promise.all(parts.map((part) => search.search(part)));
    await search.close();
    for (const [i, part] of parts.entries())
      assert.deepEqual(
        [...codes[i]!],
        slowNearest(part, all.data.subarray(0, 512 * 16)).map(({ code }) => code),
      );
  });

  test('refuses centroids of another length', async () => {
    await assert.rejects(
      nearestCodes(stackVectors([[1, 2, 3]]), new Float32Array(4)),
      (error) => error instanceof QuantizationError && /4 numbers are no centroids of 3/.test(error.message),
    );
  });
});

describe('trainKmeans', () => {
  test('the same seed gives the same centroids, bit by bit', async () => {
    const vectors = clusters(new SeededRandom(2), { numVectors: 500, dim: 8, numClusters: 12, spread: 0.3 });
    const train = (seed: number) => trainKmeans(vectors, { numCodes: 16, random: new SeededRandom(seed) });
    const [first, again, other] = await Promise.all([train(7), train(7), train(8)]);
    assert.deepEqual(first, again);
    assert.notDeepEqual(first.centroids, other.centroids);
  });

  test('each centroid is the mean of its vectors once it has converged', async () => {
    const vectors = clusters(new SeededRandom(3), { numVectors: 400, dim: 6, numClusters: 10, spread: 0.2 });
    const { centroids } = await trainKmeans(vectors, {
      numCodes: 10,
      random: new SeededRandom(1),
      tolerance: 0,
      maxIterations: 100,
    });
    const codes = await nearestCodes(vectors, centroids);
    for (const [k, mean] of slowMeans(vectors, codes, 10).entries())
      for (const [d, m] of (mean ?? []).entries())
        assert.ok(Math.abs(m - centroids[k * 6 + d]!) < 1e-5, `code ${k} place ${d}`);
  });

  test('finds clusters that lie apart', async () => {
    const vectors = clusters(new SeededRandom(4), { numVectors: 600, dim: 12, numClusters: 6, spread: 0.02 });
    const { centroids, meanSquaredError } = await trainKmeans(vectors, {
      numCodes: 6,
      random: new SeededRandom(1),
    });
    const codes = await nearestCodes(vectors, centroids);
    for (let i = 0; i < 600; i++) assert.equal(codes[i], codes[i % 6]);
    assert.ok(meanSquaredError < 12 * 0.02 ** 2 * 1.2);
  });

  test('no code stays empty while there are enough different vectors', async () => {
    await fc.assert(
      fc.asyncProperty(
        vectorsOf(2, 1, 60),
        fc.integer({ min: 1, max: 16 }),
        fc.nat(1000),
        async (vectors, numCodes, seed) => {
          const { centroids } = await trainKmeans(vectors, {
            numCodes,
            random: new SeededRandom(seed),
            maxIterations: 60,
          });
          assert.ok(centroids.every(Number.isFinite));
          const different = new Set(
            Array.from({ length: vectors.numVectors }, (_, i) => vectors.data.slice(i * 2, i * 2 + 2).join()),
          ).size;
          const used = new Set(await nearestCodes(vectors, centroids)).size;
          assert.ok(used <= different);
          if (different <= numCodes) assert.equal(used, different);
        },
      ),
      { seed: 12, numRuns: 40 },
    );
  });

  test('takes the steps of a plain Lloyd', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(1000), fc.integer({ min: 2, max: 90 }), async (seed, numCodes) => {
        const random = new SeededRandom(seed);
        const vectors = clusters(random, { numVectors: 400, dim: 5, numClusters: 12, spread: 0.6 });
        const start = vectors.data.slice(0, numCodes * 5);
        const from = {
          centroids: start,
          iterations: 0,
          meanSquaredError: Number.POSITIVE_INFINITY,
          reseeded: 0,
          converged: false,
        };
        const { centroids, reseeded } = await trainKmeans(vectors, {
          numCodes,
          random,
          from,
          maxIterations: 3,
          tolerance: 0,
        });
        let slow = start;
        for (let i = 0; i < 3; i++) {
          const codes = Int32Array.from(slowNearest(vectors, slow), ({ code }) => code);
          slow = Float32Array.from(
            slowMeans(vectors, codes, numCodes).flatMap(
              (mean, k) => mean ?? [...slow.subarray(k * 5, k * 5 + 5)],
            ),
          );
        }
        if (reseeded > 0) return;
        for (const [at, v] of slow.entries()) assert.ok(Math.abs(v - centroids[at]!) < 1e-5, `${at}`);
      }),
      { seed: 17, numRuns: 20 },
    );
  });

  test('vectors read in chunks on each pass give the centroids of those in memory', async () => {
    const vectors = clusters(new SeededRandom(9), {
      numVectors: 1_000,
      dim: 8,
      numClusters: 30,
      spread: 0.4,
    });
    let passes = 0;
    const source = {
      dim: 8,
      *chunks() {
        passes++;
        for (let from = 0; from < 1_000; from += 256) {
          const data = vectors.data.slice(from * 8, Math.min(1_000, from + 256) * 8);
          yield { data, numVectors: data.length / 8, dim: 8 };
        }
      },
    };
    const inMemory = await trainKmeans(vectors, { numCodes: 100, random: new SeededRandom(1) });
    const streamed = await trainKmeans(source, { numCodes: 100, random: new SeededRandom(1) });
    assert.deepEqual(streamed, inMemory);
    assert.equal(passes, 1 + streamed.iterations);
  });

  test('a run that goes on from any of its states ends where the whole run ends', async () => {
    const vectors = clusters(new SeededRandom(3), { numVectors: 600, dim: 6, numClusters: 15, spread: 0.5 });
    const states: KmeansState[] = [];
    const options = { numCodes: 70, tolerance: 1e-3 };
    const whole = await trainKmeans(vectors, {
      ...options,
      random: new SeededRandom(4),
      onIteration: (state) => void states.push(state),
    });
    assert.equal(states.length, whole.iterations);
    assert.ok(states.length > 3);
    for (const from of states)
      assert.deepEqual(await trainKmeans(vectors, { ...options, random: new SeededRandom(4), from }), whole);
  });

  test('an outlier far away does not lose precision for the rest', async () => {
    const rows = Array.from({ length: 1000 }, (_, i) => [1e6 + (i % 2), 0]);
    const { centroids } = await trainKmeans(stackVectors(rows), { numCodes: 2, random: new SeededRandom(1) });
    assert.deepEqual([centroids[0], centroids[2]].sort(), [1e6, 1e6 + 1]);
  });

  test('refuses what it cannot train on', async () => {
    const random = new SeededRandom(1);
    assert.throws(() => stackVectors([]), /at least one vector/);
    assert.throws(() => stackVectors([[1], [1, 2]]), /vector 1 has 2/);
    await assert.rejects(
      trainKmeans(stackVectors([[1], [Number.NaN]]), { numCodes: 1, random }),
      /Vector 1 holds NaN/,
    );
    await assert.rejects(trainKmeans(stackVectors([[1]]), { numCodes: 0, random }), /at least 1, got 0/);
    await assert.rejects(trainKmeans({ dim: 2, chunks: () => [] }, { numCodes: 1, random }), /got none/);
  });
});
