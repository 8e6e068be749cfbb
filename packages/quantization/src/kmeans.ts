/**
 * Lloyd's k-means with k-means++ starts (Arthur and Vassilvitskii 2007). The traps it avoids: centroids are summed in
 * float64, a cluster that empties is seeded anew from the vector that is served worst, and one seed gives one result.
 */
import { nearestCodes, squaredDistance } from './nearest-code.ts';
import {
  QuantizationError,
  type RandomSource,
  requireFinite,
  sampleIndices,
  takeRows,
  type Vectors,
} from './vectors.ts';

export interface KmeansOptions {
  numCodes: number;
  random: RandomSource;
  maxIterations?: number;
  /** Stops when the error falls by less than this share in one iteration. */
  tolerance?: number;
  /** More vectors than this per code are sampled down; the codes change little beyond it. */
  maxVectorsPerCode?: number;
}
export interface Kmeans {
  /** float32 [K, dim] */
  centroids: Float32Array;
  iterations: number;
  /** Mean squared distance to the own centroid before the last update. */
  meanSquaredError: number;
  /** Times an empty cluster was seeded anew. */
  reseeded: number;
}

/**
 * With fewer different vectors than codes the surplus codes repeat a centroid and are never chosen.
 * @throws QuantizationError for no vectors, a number of codes below 1, or numbers that are not finite
 */
export function trainKmeans(vectors: Vectors, options: KmeansOptions): Kmeans {
  const { numCodes, random, maxIterations = 25, tolerance = 1e-4, maxVectorsPerCode = 256 } = options;
  if (vectors.numVectors < 1) throw new QuantizationError('k-means needs at least one vector, got none');
  if (!Number.isInteger(numCodes) || numCodes < 1)
    throw new QuantizationError(`k-means needs a whole number of codes of at least 1, got ${numCodes}`);
  requireFinite(vectors);
  const limit = numCodes * maxVectorsPerCode;
  const training =
    vectors.numVectors > limit
      ? takeRows(vectors, sampleIndices(vectors.numVectors, limit, random))
      : vectors;
  const { data, numVectors, dim } = training;
  const centroids = plusPlusStarts(training, numCodes, random);
  const sums = new Float64Array(numCodes * dim);
  const counts = new Int32Array(numCodes);
  const distances = new Float64Array(numVectors);
  let error = Number.POSITIVE_INFINITY;
  let reseeded = 0;
  let iterations = 0;
  while (iterations < maxIterations) {
    iterations++;
    const codes = nearestCodes(training, centroids, distances);
    let total = 0;
    for (let i = 0; i < numVectors; i++) total += distances[i]!;
    const previous = error;
    error = total / numVectors;

    sums.fill(0);
    counts.fill(0);
    for (let i = 0; i < numVectors; i++) {
      const k = codes[i]!;
      counts[k]!++;
      for (let d = 0, at = i * dim, to = k * dim; d < dim; d++) sums[to++]! += data[at++]!;
    }
    for (let k = 0; k < numCodes; k++) {
      const count = counts[k]!;
      if (count === 0) continue;
      for (let d = k * dim; d < (k + 1) * dim; d++) centroids[d] = sums[d]! / count;
    }
    const moved = reseedEmpty(training, centroids, codes, counts, distances);
    reseeded += moved;
    if (moved === 0 && (error === 0 || previous - error < tolerance * previous)) break;
  }
  return { centroids, iterations, meanSquaredError: error, reseeded };
}

/** Starts drawn with a chance proportional to the squared distance from those drawn before, on a sample. */
function plusPlusStarts(vectors: Vectors, numCodes: number, random: RandomSource): Float32Array {
  const sample = takeRows(vectors, sampleIndices(vectors.numVectors, Math.max(8 * numCodes, 4096), random));
  const { data, numVectors, dim } = sample;
  const centroids = new Float32Array(numCodes * dim);
  const nearest = new Float64Array(numVectors).fill(Number.POSITIVE_INFINITY);
  let drawn = Math.floor(random.next() * numVectors);
  for (let k = 0; k < numCodes; k++) {
    centroids.set(data.subarray(drawn * dim, (drawn + 1) * dim), k * dim);
    let total = 0;
    for (let i = 0; i < numVectors; i++) {
      const d2 = squaredDistance(data, i * dim, centroids, k * dim, dim);
      if (d2 < nearest[i]!) nearest[i] = d2;
      total += nearest[i]!;
    }
    // With no distance left every different vector is a start already; the rest repeats the last.
    let left = random.next() * total;
    if (total > 0)
      for (let i = 0; i < numVectors; i++) {
        if (nearest[i] === 0) continue;
        drawn = i;
        left -= nearest[i]!;
        if (left < 0) break;
      }
  }
  return centroids;
}

/** Moves each empty code to the vector farthest from its centroid, never the same vector or place twice. */
function reseedEmpty(
  { data, numVectors, dim }: Vectors,
  centroids: Float32Array,
  codes: Int32Array,
  counts: Int32Array,
  distances: Float64Array,
): number {
  const empty: number[] = [];
  for (let k = 0; k < counts.length; k++) if (counts[k] === 0) empty.push(k);
  if (empty.length === 0) return 0;
  const byDistance = Array.from({ length: numVectors }, (_, i) => i)
    .filter((i) => distances[i]! > 0)
    .sort((a, b) => distances[b]! - distances[a]! || a - b);
  const places = new Set<string>();
  let moved = 0;
  for (const i of byDistance) {
    if (moved === empty.length) break;
    const own = codes[i]!;
    if (counts[own]! <= 1) continue;
    const row = data.subarray(i * dim, (i + 1) * dim);
    const place = row.join();
    if (places.has(place)) continue;
    places.add(place);
    counts[own]!--;
    centroids.set(row, empty[moved]! * dim);
    moved++;
  }
  return moved;
}
