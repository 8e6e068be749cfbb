/** Where k-means begins. */
import { nearestCodes } from './nearest-search.ts';
import { type RandomSource, squaredDistance, type Vectors } from './vectors.ts';

/** Starts are drawn in about this many rounds: k-means++ up to so many codes, k-means|| beyond. */
const ROUNDS = 64;
/** Fewer new starts than this are compared without a matrix product. */
const MIN_PRODUCT = 8;

/**
 * Starts drawn with a chance proportional to the squared distance from those drawn in earlier rounds: k-means++
 * (Arthur and Vassilvitskii 2007) one by one, for many codes several at a time (k-means||, Bahmani et al. 2012).
 * @returns float32 [K, dim]; with fewer different vectors than codes the surplus repeats some
 */
export async function plusPlusStarts(
  { data, numVectors, dim }: Vectors,
  numCodes: number,
  random: RandomSource,
  numThreads: number,
): Promise<Float32Array> {
  const centroids = new Float32Array(numCodes * dim);
  const nearest = new Float64Array(numVectors).fill(Number.POSITIVE_INFINITY);
  const upTo = new Float64Array(numVectors);
  const drawn = new Set<number>([Math.floor(random.next() * numVectors)]);
  for (let k = 0; ; ) {
    const begin = k;
    for (const i of drawn) centroids.set(data.subarray(i * dim, (i + 1) * dim), k++ * dim);
    if (k === numCodes) return centroids;
    await shorten(nearest, { data, numVectors, dim }, centroids.subarray(begin * dim, k * dim), numThreads);
    let total = 0;
    for (let i = 0; i < numVectors; i++) {
      total += nearest[i]!;
      upTo[i] = total;
    }
    // With no distance left every different vector is a start already.
    if (total === 0) {
      for (; k < numCodes; k++) centroids.copyWithin(k * dim, 0, dim);
      return centroids;
    }
    const wanted = Math.min(Math.ceil(numCodes / ROUNDS), numCodes - k);
    drawn.clear();
    for (let tries = 0; drawn.size < wanted && (drawn.size === 0 || tries < 2 * wanted); tries++) {
      const i = firstAbove(upTo, random.next() * total);
      if (nearest[i]! > 0) drawn.add(i);
    }
  }
}

/** Brings squared distances to the nearest start up to these new starts. */
async function shorten(
  nearest: Float64Array,
  vectors: Vectors,
  starts: Float32Array,
  numThreads: number,
): Promise<void> {
  const { data, numVectors, dim } = vectors;
  const shortenTo = (i: number, start: number): void => {
    const d2 = squaredDistance(data, i * dim, starts, start * dim, dim);
    if (d2 < nearest[i]!) nearest[i] = d2;
  };
  if (starts.length / dim < MIN_PRODUCT) {
    for (let start = 0; start < starts.length / dim; start++)
      for (let i = 0; i < numVectors; i++) shortenTo(i, start);
    return;
  }
  const codes = await nearestCodes(vectors, starts, numThreads);
  for (let i = 0; i < numVectors; i++) shortenTo(i, codes[i]!);
}

/** Least index whose running sum exceeds the value. */
function firstAbove(sums: Float64Array, value: number): number {
  let low = 0;
  let high = sums.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
