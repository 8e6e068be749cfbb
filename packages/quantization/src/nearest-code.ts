import { QuantizationError, type Vectors } from './vectors.ts';

/**
 * NearestCode (OneMall, equation 2): for each vector the index of the closest centroid, the lowest one of equals.
 *
 * |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), so the largest x.c - |c|^2 / 2 wins. Sums run in float64, four centroids at
 * a time in one order, so equal centroids give equal scores and the first of them is taken.
 * @param vectors float32 [N, dim]
 * @param centroids float32 [K, dim]
 * @param squaredDistances where given, [N] squared distance to the centroid taken
 * @returns int32 [N]
 */
export function nearestCodes(
  vectors: Vectors,
  centroids: Float32Array,
  squaredDistances?: Float64Array,
): Int32Array {
  const { data, numVectors, dim } = vectors;
  const numCodes = centroids.length / dim;
  if (!Number.isInteger(numCodes) || numCodes < 1)
    throw new QuantizationError(`${centroids.length} numbers are no centroids of ${dim} each`);
  // Rows padded to a multiple of four centroids; the padding can never win.
  const padded = Math.ceil(numCodes / 4) * 4;
  const c = new Float64Array(padded * dim);
  c.set(centroids);
  const half = new Float64Array(padded).fill(Number.POSITIVE_INFINITY);
  for (let k = 0; k < numCodes; k++) {
    let norm = 0;
    for (let d = k * dim; d < (k + 1) * dim; d++) norm += c[d]! * c[d]!;
    half[k] = norm / 2;
  }
  const codes = new Int32Array(numVectors);
  const x = new Float64Array(dim);
  for (let i = 0; i < numVectors; i++) {
    let norm = 0;
    for (let d = 0, at = i * dim; d < dim; d++, at++) {
      const v = data[at]!;
      x[d] = v;
      norm += v * v;
    }
    let best = Number.NEGATIVE_INFINITY;
    let code = 0;
    for (let k = 0; k < padded; k += 4) {
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let p0 = k * dim;
      let p1 = p0 + dim;
      let p2 = p1 + dim;
      let p3 = p2 + dim;
      for (let d = 0; d < dim; d++) {
        const v = x[d]!;
        s0 += v * c[p0++]!;
        s1 += v * c[p1++]!;
        s2 += v * c[p2++]!;
        s3 += v * c[p3++]!;
      }
      s0 -= half[k]!;
      s1 -= half[k + 1]!;
      s2 -= half[k + 2]!;
      s3 -= half[k + 3]!;
      if (s0 > best) {
        best = s0;
        code = k;
      }
      if (s1 > best) {
        best = s1;
        code = k + 1;
      }
      if (s2 > best) {
        best = s2;
        code = k + 2;
      }
      if (s3 > best) {
        best = s3;
        code = k + 3;
      }
    }
    codes[i] = code;
    if (squaredDistances) squaredDistances[i] = Math.max(0, norm - 2 * best);
  }
  return codes;
}

/** Squared Euclidean distance of two rows. */
export function squaredDistance(
  a: Float32Array,
  aAt: number,
  b: Float32Array,
  bAt: number,
  dim: number,
): number {
  let sum = 0;
  for (let d = 0; d < dim; d++) {
    const z = a[aAt + d]! - b[bAt + d]!;
    sum += z * z;
  }
  return sum;
}
