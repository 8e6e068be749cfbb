/**
 * NearestCode (OneMall, equation 2) on onnxruntime: for each vector the index of the closest centroid, the lowest one
 * of equals.
 *
 * |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), so the largest x.c - |c|^2 / 2 wins: one matrix product. An ArgMax over
 * thousands of scores is slow in onnxruntime and a ReduceMax is fast, therefore the best block of 64 is found first.
 * Products run in float32: of centroids whose distances differ by less than about 1e-6 either may win. Both sides are
 * shifted by the centroids' mean, which keeps that true for vectors far from the origin.
 */
import { cpuSession, GraphBuilder, int, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { CandidateSearch } from './candidate-search.ts';
import { QuantizationError, type Vectors } from './vectors.ts';

/** Rows of one run: enough for a matrix product, few enough that their scores stay in the cache. */
export const ROWS_PER_RUN = 256;
const BLOCK = 64;
/** From so many centroids on the product is what counts, and small integers are worth a second look at the best. */
const MIN_CANDIDATE_SEARCH = 512;
/** The score of a place that is no centroid. */
const NEVER = -3e38;

/**
 * Adds the search to a graph.
 * @param x float32 [R, dim]
 * @param centroids float32 [K, dim]
 * @returns int32 [R]
 */
function emitNearest(g: GraphBuilder, x: Value, centroids: Float32Array): Value {
  const [rows, dim] = x.shape as [number, number];
  const numCodes = codesOf(centroids, dim);
  const blocked = numCodes > BLOCK;
  const places = blocked ? Math.ceil(numCodes / BLOCK) * BLOCK : numCodes;
  const shift = meanRow(centroids, dim);
  // Column k is the shifted centroid with its bias below it: a bias of its own would be one more pass over all scores.
  const columns = new Float32Array((dim + 1) * places).fill(NEVER, dim * places);
  for (let k = 0; k < numCodes; k++) {
    let norm = 0;
    for (let d = 0; d < dim; d++) {
      const value = Math.fround(centroids[k * dim + d]! - shift[d]!);
      columns[d * places + k] = value;
      norm += value * value;
    }
    columns[dim * places + k] = -norm / 2;
  }
  const ones = g.initializer(`${x.name}.ones`, [rows, 1], 'float32', new Float32Array(rows).fill(1));
  const shifted = g.sub(x, g.initializer(`${x.name}.shift`, [dim], 'float32', shift));
  const scores = g.matmul(
    g.concat([shifted, ones], 1),
    g.initializer(`${x.name}.columns`, [dim + 1, places], 'float32', columns),
    false,
    false,
  );
  const argMax = (v: Value): Value =>
    g.emit('ArgMax', [v], [rows, 1], 'int64', { axis: int(1), keepdims: int(1), select_last_index: int(0) });
  if (!blocked) return g.reshape(g.cast(argMax(scores), 'int32'), [rows]);
  const blocks = g.reshape(scores, [rows, places / BLOCK, BLOCK]);
  const block = argMax(g.reduce('ReduceMax', blocks, [2], false));
  const inBlock = argMax(
    g.emit('GatherND', [blocks, block], [rows, BLOCK], 'float32', { batch_dims: int(1) }),
  );
  return g.reshape(g.cast(g.add(g.mul(block, g.int64([BLOCK], [])), inBlock), 'int32'), [rows]);
}

function codesOf(centroids: Float32Array, dim: number): number {
  const numCodes = centroids.length / dim;
  if (!Number.isInteger(numCodes) || numCodes < 1)
    throw new QuantizationError(`${centroids.length} numbers are no centroids of ${dim} each`);
  return numCodes;
}

function meanRow(centroids: Float32Array, dim: number): Float32Array {
  const sums = new Float64Array(dim);
  for (let i = 0; i < centroids.length; i++) sums[i % dim]! += centroids[i]!;
  return Float32Array.from(sums, (sum) => sum / (centroids.length / dim));
}

/** Runs a graph with one input x [ROWS_PER_RUN, dim] over any number of vectors, the last rows padded with zeros. */
export async function runInRows(
  session: ort.InferenceSession,
  { data, numVectors, dim }: Vectors,
  take: (outputs: ort.InferenceSession.ReturnType, from: number, count: number) => void,
): Promise<void> {
  for (let from = 0; from < numVectors; from += ROWS_PER_RUN) {
    const count = Math.min(ROWS_PER_RUN, numVectors - from);
    let rows = data.subarray(from * dim, (from + count) * dim);
    if (count < ROWS_PER_RUN) {
      const padded = new Float32Array(ROWS_PER_RUN * dim);
      padded.set(rows);
      rows = padded;
    }
    take(await session.run({ x: new ort.Tensor('float32', rows, [ROWS_PER_RUN, dim]) }), from, count);
  }
}

/** A search among fixed centroids. */
export class NearestSearch {
  readonly #search: CandidateSearch | ort.InferenceSession;

  private constructor(search: CandidateSearch | ort.InferenceSession) {
    this.#search = search;
  }

  /**
   * @param centroids float32 [K, dim]; copied
   * @throws QuantizationError if they are not whole rows
   */
  static async open(centroids: Float32Array, dim: number, numThreads = 1): Promise<NearestSearch> {
    if (codesOf(centroids, dim) >= MIN_CANDIDATE_SEARCH)
      return new NearestSearch(await CandidateSearch.open(centroids, dim, numThreads));
    const g = new GraphBuilder({ portable: true });
    g.output('codes', emitNearest(g, g.input('x', [ROWS_PER_RUN, dim], 'float32'), centroids));
    return new NearestSearch(await ort.InferenceSession.create(g.encode(), cpuSession(numThreads)));
  }

  /** int32 [N] */
  async search(vectors: Vectors): Promise<Int32Array> {
    if (this.#search instanceof CandidateSearch) return this.#search.search(vectors);
    const codes = new Int32Array(vectors.numVectors);
    await runInRows(this.#search, vectors, (outputs, from, count) => {
      codes.set((outputs.codes!.data as Int32Array).subarray(0, count), from);
    });
    return codes;
  }

  /** Frees its memory, which the garbage collector does not see. */
  close(): Promise<void> {
    return this.#search instanceof CandidateSearch ? this.#search.close() : this.#search.release();
  }
}

/** One search among centroids that are not needed again. */
export async function nearestCodes(
  vectors: Vectors,
  centroids: Float32Array,
  numThreads = 1,
): Promise<Int32Array> {
  const search = await NearestSearch.open(centroids, vectors.dim, numThreads);
  try {
    return await search.search(vectors);
  } finally {
    await search.close();
  }
}
