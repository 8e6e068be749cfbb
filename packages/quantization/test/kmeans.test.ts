import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import { nearestCodes, QuantizationError, stackVectors, trainKmeans, type Vectors } from '../src/index.ts';
import { clusters, slowMeans, slowNearest } from './reference.ts';

const vectorsOf = (dim: number, min: number, max: number): fc.Arbitrary<Vectors> =>
  fc
    .array(fc.array(fc.integer({ min: -8, max: 8 }), { minLength: dim, maxLength: dim }), {
      minLength: min,
      maxLength: max,
    })
    .map(stackVectors);

describe('nearestCodes', () => {
  test('takes the same centroid as a plain search, the lowest of equals', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }).chain((dim) => fc.tuple(vectorsOf(dim, 1, 20), vectorsOf(dim, 1, 13))),
        ([vectors, centroids]) => {
          const distances = new Float64Array(vectors.numVectors);
          const codes = nearestCodes(vectors, centroids.data, distances);
          for (const [i, slow] of slowNearest(vectors, centroids.data).entries()) {
            // Whole numbers: both sums are exact, so equal distances are equal.
            assert.equal(codes[i], slow.code);
            assert.equal(distances[i], slow.distance);
          }
        },
      ),
      { seed: 11, numRuns: 200 },
    );
  });

  test('is as close as a plain search on real numbers', () => {
    const random = new SeededRandom(5);
    const vectors = clusters(random, { numVectors: 300, dim: 17, numClusters: 9, spread: 0.7 });
    const { centroids } = trainKmeans(vectors, { numCodes: 21, random });
    const codes = nearestCodes(vectors, centroids);
    for (const [i, slow] of slowNearest(vectors, centroids).entries()) {
      let own = 0;
      for (let d = 0; d < 17; d++) own += (vectors.data[i * 17 + d]! - centroids[codes[i]! * 17 + d]!) ** 2;
      assert.ok(own <= slow.distance * (1 + 1e-9), `vector ${i}: ${own} against ${slow.distance}`);
    }
  });

  test('refuses centroids of another length', () => {
    assert.throws(
      () => nearestCodes(stackVectors([[1, 2, 3]]), new Float32Array(4)),
      (error) => error instanceof QuantizationError && /4 numbers are no centroids of 3/.test(error.message),
    );
  });
});

describe('trainKmeans', () => {
  test('the same seed gives the same centroids, bit by bit', () => {
    const vectors = clusters(new SeededRandom(2), { numVectors: 500, dim: 8, numClusters: 12, spread: 0.3 });
    const train = (seed: number) => trainKmeans(vectors, { numCodes: 16, random: new SeededRandom(seed) });
    assert.deepEqual(train(7).centroids, train(7).centroids);
    assert.notDeepEqual(train(7).centroids, train(8).centroids);
  });

  test('each centroid is the mean of its vectors once it has converged', () => {
    const vectors = clusters(new SeededRandom(3), { numVectors: 400, dim: 6, numClusters: 10, spread: 0.2 });
    const { centroids } = trainKmeans(vectors, {
      numCodes: 10,
      random: new SeededRandom(1),
      tolerance: 0,
      maxIterations: 200,
    });
    const codes = nearestCodes(vectors, centroids);
    for (const [k, mean] of slowMeans(vectors, codes, 10).entries())
      for (const [d, m] of (mean ?? []).entries())
        assert.ok(Math.abs(m - centroids[k * 6 + d]!) < 1e-5, `code ${k} place ${d}`);
  });

  test('finds clusters that lie apart', () => {
    const vectors = clusters(new SeededRandom(4), { numVectors: 600, dim: 12, numClusters: 6, spread: 0.02 });
    const { centroids, meanSquaredError } = trainKmeans(vectors, {
      numCodes: 6,
      random: new SeededRandom(1),
    });
    const codes = nearestCodes(vectors, centroids);
    for (let i = 0; i < 600; i++) assert.equal(codes[i], codes[i % 6]);
    assert.ok(meanSquaredError < 12 * 0.02 ** 2 * 1.2);
  });

  test('no code stays empty while there are enough different vectors', () => {
    fc.assert(
      fc.property(
        vectorsOf(2, 1, 60),
        fc.integer({ min: 1, max: 16 }),
        fc.nat(1000),
        (vectors, numCodes, seed) => {
          const { centroids } = trainKmeans(vectors, {
            numCodes,
            random: new SeededRandom(seed),
            maxIterations: 60,
          });
          assert.ok(centroids.every(Number.isFinite));
          const different = new Set(
            Array.from({ length: vectors.numVectors }, (_, i) => vectors.data.slice(i * 2, i * 2 + 2).join()),
          ).size;
          const used = new Set(nearestCodes(vectors, centroids)).size;
          assert.ok(used <= different);
          if (different <= numCodes) assert.equal(used, different);
        },
      ),
      { seed: 12, numRuns: 150 },
    );
  });

  test('an outlier far away does not lose precision for the rest', () => {
    const rows = Array.from({ length: 1000 }, (_, i) => [1e6 + (i % 2), 0]);
    const { centroids } = trainKmeans(stackVectors(rows), { numCodes: 2, random: new SeededRandom(1) });
    assert.deepEqual([centroids[0], centroids[2]].sort(), [1e6, 1e6 + 1]);
  });

  test('refuses what it cannot train on', () => {
    const random = new SeededRandom(1);
    assert.throws(() => stackVectors([]), /at least one vector/);
    assert.throws(() => stackVectors([[1], [1, 2]]), /vector 1 has 2/);
    assert.throws(
      () => trainKmeans(stackVectors([[1], [Number.NaN]]), { numCodes: 1, random }),
      /Vector 1 holds NaN/,
    );
    assert.throws(() => trainKmeans(stackVectors([[1]]), { numCodes: 0, random }), /at least 1, got 0/);
  });
});
