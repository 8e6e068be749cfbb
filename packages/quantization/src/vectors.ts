/** N vectors of one length, row after row. */
export interface Vectors {
  /** float32 [N, dim] */
  data: Float32Array;
  numVectors: number;
  dim: number;
}

/** Where random numbers come from; a seeded one gives the same codebook every time. */
export interface RandomSource {
  /** Uniform in [0, 1). */
  next(): number;
}

/** A small seeded source (mulberry32) for callers that have none of their own, such as a thread. */
export function seededSource(seed: number): RandomSource {
  let state = seed >>> 0;
  return {
    next: () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
    },
  };
}

/** Vectors or options that no codebook can be trained from, or a codebook that does not fit the vectors. */
export class QuantizationError extends Error {
  override name = 'QuantizationError';
}

/**
 * Copies rows into one block.
 * @throws QuantizationError if there is none, or lengths differ
 */
export function stackVectors(rows: readonly ArrayLike<number>[]): Vectors {
  const dim = rows[0]?.length ?? 0;
  if (dim === 0) throw new QuantizationError('Expected at least one vector of at least one number, got none');
  const data = new Float32Array(rows.length * dim);
  for (const [i, row] of rows.entries()) {
    if (row.length !== dim)
      throw new QuantizationError(
        `Vectors of one scenario have one length: vector 0 has ${dim} numbers, vector ${i} has ${row.length}`,
      );
    data.set(row, i * dim);
  }
  return { data, numVectors: rows.length, dim };
}

/** @throws QuantizationError naming the first vector that holds NaN or an infinity */
export function requireFinite({ data, dim }: Vectors): void {
  for (let i = 0; i < data.length; i++)
    if (!Number.isFinite(data[i]))
      throw new QuantizationError(
        `Vector ${Math.floor(i / dim)} holds ${data[i]} at place ${i % dim}: leave such items out`,
      );
}

/** `count` different indices below `n`, ascending; all of them when count >= n. */
export function sampleIndices(n: number, count: number, random: RandomSource): Int32Array {
  const indices = Int32Array.from({ length: n }, (_, i) => i);
  if (count >= n) return indices;
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random.next() * (n - i));
    const swap = indices[i]!;
    indices[i] = indices[j]!;
    indices[j] = swap;
  }
  return indices.slice(0, count).sort();
}

/** The rows at these indices, copied. */
export function takeRows({ data, dim }: Vectors, indices: Int32Array): Vectors {
  const out = new Float32Array(indices.length * dim);
  for (let i = 0; i < indices.length; i++)
    out.set(data.subarray(indices[i]! * dim, (indices[i]! + 1) * dim), i * dim);
  return { data: out, numVectors: indices.length, dim };
}

/** Squared Euclidean distance of two rows, in float64: four sums side by side, as the kernel of `RowKernels` takes them. */
export function squaredDistance(
  a: Float32Array,
  aAt: number,
  b: Float32Array,
  bAt: number,
  dim: number,
): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  const whole = dim - (dim % 4);
  let d = 0;
  for (; d < whole; d += 4) {
    const z0 = a[aAt + d]! - b[bAt + d]!;
    const z1 = a[aAt + d + 1]! - b[bAt + d + 1]!;
    const z2 = a[aAt + d + 2]! - b[bAt + d + 2]!;
    const z3 = a[aAt + d + 3]! - b[bAt + d + 3]!;
    s0 += z0 * z0;
    s1 += z1 * z1;
    s2 += z2 * z2;
    s3 += z3 * z3;
  }
  if (d < dim) s0 += (a[aAt + d]! - b[bAt + d]!) ** 2;
  if (d + 1 < dim) s1 += (a[aAt + d + 1]! - b[bAt + d + 1]!) ** 2;
  if (d + 2 < dim) s2 += (a[aAt + d + 2]! - b[bAt + d + 2]!) ** 2;
  return s0 + s2 + (s1 + s3);
}
