/**
 * Lloyd's k-means over vectors in memory or read anew on each pass. The traps it avoids: centroids are summed in
 * float64, a cluster that empties is seeded anew from the sampled vector that is served worst, and one seed gives one
 * result.
 */
import { plusPlusStarts } from './kmeans-starts.ts';
import { NearestSearch, nearestCodes } from './nearest-search.ts';
import { isInMemory, sampleVectors, toSource, type VectorSource } from './vector-source.ts';
import {
  QuantizationError,
  type RandomSource,
  sampleIndices,
  squaredDistance,
  takeRows,
  type Vectors,
} from './vectors.ts';

export interface KmeansState {
  /** float32 [K, dim] */
  centroids: Float32Array;
  iterations: number;
  /** Mean squared distance to the own centroid before the last update. */
  meanSquaredError: number;
  /** Times an empty cluster was seeded anew. */
  reseeded: number;
  /** No further iteration is worth it. */
  converged: boolean;
}

export interface KmeansOptions {
  numCodes: number;
  random: RandomSource;
  maxIterations?: number;
  /** Stops when the error falls by less than this share in one iteration. */
  tolerance?: number;
  /** More vectors in memory than this per code are sampled down; the codes change little beyond it. */
  maxVectorsPerCode?: number;
  numThreads?: number;
  /** Goes on from here instead of drawing starts: a run that was stopped, or the centroids of an older codebook. */
  from?: KmeansState;
  /** Told after each iteration; the state is a copy. */
  onIteration?: (state: KmeansState) => void | Promise<void>;
}

/** Vectors kept for starts and for seeding empty clusters, per code. */
const SAMPLE_PER_CODE = 8;
const MIN_SAMPLE = 4_096;

/**
 * With fewer different vectors than codes the surplus codes repeat a centroid and are never chosen.
 * @throws QuantizationError for no vectors, a number of codes below 1, or numbers that are not finite
 */
export async function trainKmeans(
  vectors: Vectors | VectorSource,
  options: KmeansOptions,
): Promise<KmeansState> {
  const { numCodes, random, maxIterations = 25, tolerance = 1e-4, numThreads = 1 } = options;
  if (!Number.isInteger(numCodes) || numCodes < 1)
    throw new QuantizationError(`k-means needs a whole number of codes of at least 1, got ${numCodes}`);
  const source = toSource(
    isInMemory(vectors) ? limited(vectors, numCodes * (options.maxVectorsPerCode ?? 256), random) : vectors,
  );
  const { dim } = source;
  const { sample } = await sampleVectors(source, Math.max(SAMPLE_PER_CODE * numCodes, MIN_SAMPLE), random);
  if (options.from && options.from.centroids.length !== numCodes * dim)
    throw new QuantizationError(
      `${numCodes} codes of ${dim} numbers cannot go on from ${options.from.centroids.length} numbers`,
    );
  const state: KmeansState = options.from
    ? { ...options.from, centroids: options.from.centroids.slice() }
    : {
        centroids: await plusPlusStarts(sample, numCodes, random, numThreads),
        iterations: 0,
        meanSquaredError: Number.POSITIVE_INFINITY,
        reseeded: 0,
        converged: false,
      };
  while (!state.converged && state.iterations < maxIterations) {
    state.iterations++;
    const previous = state.meanSquaredError;
    const { counts, meanSquaredError } = await updateMeans(source, state.centroids, numThreads);
    state.meanSquaredError = meanSquaredError;
    const moved = await reseedEmpty(sample, state.centroids, counts, numThreads);
    state.reseeded += moved;
    state.converged =
      moved === 0 && (meanSquaredError === 0 || previous - meanSquaredError < tolerance * previous);
    await options.onIteration?.({ ...state, centroids: state.centroids.slice() });
  }
  return state;
}

const limited = (vectors: Vectors, limit: number, random: RandomSource): Vectors =>
  vectors.numVectors > limit ? takeRows(vectors, sampleIndices(vectors.numVectors, limit, random)) : vectors;

/** One pass: each centroid becomes the mean of the vectors nearest to it; one without any stays. */
async function updateMeans(
  source: VectorSource,
  centroids: Float32Array,
  numThreads: number,
): Promise<{ counts: Int32Array; meanSquaredError: number }> {
  const { dim } = source;
  const sums = new Float64Array(centroids.length);
  const counts = new Int32Array(centroids.length / dim);
  let numVectors = 0;
  let total = 0;
  const search = await NearestSearch.open(centroids, dim, numThreads);
  try {
    for await (const chunk of source.chunks()) {
      const codes = await search.search(chunk);
      total = addToSums(chunk, codes, centroids, sums, counts, total);
      numVectors += chunk.numVectors;
    }
  } finally {
    await search.close();
  }
  for (let k = 0; k < counts.length; k++) {
    const count = counts[k]!;
    if (count === 0) continue;
    for (let d = k * dim; d < (k + 1) * dim; d++) centroids[d] = sums[d]! / count;
  }
  return { counts, meanSquaredError: total / numVectors };
}

/** @returns `before` and the squared distances to the centroids, added one by one, so that chunks make no difference */
function addToSums(
  { data, numVectors, dim }: Vectors,
  codes: Int32Array,
  centroids: Float32Array,
  sums: Float64Array,
  counts: Int32Array,
  before: number,
): number {
  let total = before;
  for (let i = 0, at = 0; i < numVectors; i++) {
    const k = codes[i]!;
    counts[k]!++;
    for (let d = 0, to = k * dim; d < dim; d++, at++, to++) {
      const v = data[at]!;
      const z = v - centroids[to]!;
      sums[to]! += v;
      total += z * z;
    }
  }
  return total;
}

/** Moves each empty code to the sampled vector farthest from its centroid, never the same vector or place twice. */
async function reseedEmpty(
  sample: Vectors,
  centroids: Float32Array,
  counts: Int32Array,
  numThreads: number,
): Promise<number> {
  const empty: number[] = [];
  for (let k = 0; k < counts.length; k++) if (counts[k] === 0) empty.push(k);
  if (empty.length === 0) return 0;
  const { data, numVectors, dim } = sample;
  const codes = await nearestCodes(sample, centroids, numThreads);
  const distances = Float64Array.from(codes, (k, i) =>
    squaredDistance(data, i * dim, centroids, k * dim, dim),
  );
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
