/**
 * The nearest of many centroids, exactly: a product of small integers, which takes a third of the time of one of floats,
 * leaves the few that can be the nearest, and these are compared in float64.
 *
 * The score of centroid c for x is x.c - |c|^2 / 2, the largest wins. Let x^ and c^ be what is left of both as integers
 * times a scale. By Cauchy and Schwarz |x.c - x^.c^| <= |x - x^| max|c| + |x^| max|c - c^| = e, so the nearest one's rough score
 * is at most 2 e below the best rough score. Rows with too many such candidates (their neighbours in the run are much longer,
 * or centroids lie closer than integers tell apart) are looked at again with a float32 product, whose e is about 1e-6 of the
 * lengths, and where that does not help (many centroids at one place) with all centroids one by one. All three ways give the
 * centroid of the least float64 distance, the lowest of equals, so what lies beside a vector cannot change its code.
 */
import { cpuSession, GraphBuilder, int, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { squaredDistance, type Vectors } from './vectors.ts';

const ROWS = 128;
/** Rough scores are looked at in blocks of so many, of which the best few leave the graph. */
const BLOCK = 64;
const BLOCKS_OUT = 8;
/** Two products of these bounds fit into the 16 bits in which processors without VNNI add them up. */
const X_ZERO = 128;
const X_MAX = 127;
const C_MAX = 63;
/** float32 rounding of a score, as a share of the lengths that went into it, with room to spare. */
const ROUNDING = 4e-6;
const NEVER = -3e38;

export class CandidateSearch {
  readonly #centroids: Float32Array;
  readonly #dim: number;
  readonly #numThreads: number;
  readonly #shift: Float64Array;
  readonly #integers: Filter;
  #floats: Filter | null = null;

  private constructor(
    centroids: Float32Array,
    dim: number,
    numThreads: number,
    shift: Float64Array,
    integers: Filter,
  ) {
    this.#centroids = centroids;
    this.#dim = dim;
    this.#numThreads = numThreads;
    this.#shift = shift;
    this.#integers = integers;
  }

  /** @param centroids float32 [K, dim], K at least 512; copied */
  static async open(centroids: Float32Array, dim: number, numThreads: number): Promise<CandidateSearch> {
    const own = centroids.slice();
    const shift = meanRow(own, dim);
    return new CandidateSearch(
      own,
      dim,
      numThreads,
      shift,
      await Filter.open(own, dim, shift, true, numThreads),
    );
  }

  /** int32 [N] */
  async search(vectors: Vectors): Promise<Int32Array> {
    const codes = new Int32Array(vectors.numVectors);
    let left = await this.#through(this.#integers, vectors, null, codes);
    if (left.length === 0) return codes;
    this.#floats ??= await Filter.open(this.#centroids, this.#dim, this.#shift, false, this.#numThreads);
    left = await this.#through(this.#floats, vectors, left, codes);
    for (const i of left) codes[i] = nearestOfAll(vectors.data, i * this.#dim, this.#centroids, this.#dim);
    return codes;
  }

  async close(): Promise<void> {
    await this.#integers.close();
    await this.#floats?.close();
  }

  /** Codes of these rows (all where null). @returns the rows that have too many candidates */
  async #through(
    filter: Filter,
    { data, numVectors }: Vectors,
    rows: readonly number[] | null,
    codes: Int32Array,
  ): Promise<number[]> {
    const left: number[] = [];
    const count = rows?.length ?? numVectors;
    const rowAt = (i: number): number => rows?.[i] ?? i;
    for (let from = 0; from < count; from += ROWS) {
      const inRun = Math.min(ROWS, count - from);
      const found = await filter.run(data, (r) => rowAt(from + r) * this.#dim, inRun);
      for (let r = 0; r < inRun; r++) {
        const row = rowAt(from + r);
        const code = found.nearest(r, data, row * this.#dim, this.#centroids, this.#dim);
        if (code < 0) left.push(row);
        else codes[row] = code;
      }
    }
    return left;
  }
}

/** One by one. */
function nearestOfAll(x: Float32Array, at: number, centroids: Float32Array, dim: number): number {
  let nearest = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let k = 0; k < centroids.length / dim; k++) {
    const distance = squaredDistance(x, at, centroids, k * dim, dim);
    if (distance >= least) continue;
    least = distance;
    nearest = k;
  }
  return nearest;
}

/** Rough scores of all centroids on onnxruntime, by small integers or by floats, and how far they can be off. */
class Filter {
  readonly #session: ort.InferenceSession;
  readonly #dim: number;
  readonly #shift: Float64Array;
  readonly #integers: boolean;
  /** Greatest length of a centroid, and of what rounding took from one. */
  readonly #length: number;
  readonly #lost: number;
  readonly #numBlocks: number;

  private constructor(
    session: ort.InferenceSession,
    made: {
      dim: number;
      shift: Float64Array;
      integers: boolean;
      length: number;
      lost: number;
      numBlocks: number;
    },
  ) {
    this.#session = session;
    this.#dim = made.dim;
    this.#shift = made.shift;
    this.#integers = made.integers;
    this.#length = made.length;
    this.#lost = made.lost;
    this.#numBlocks = made.numBlocks;
  }

  static async open(
    centroids: Float32Array,
    dim: number,
    shift: Float64Array,
    integers: boolean,
    numThreads: number,
  ): Promise<Filter> {
    const numCodes = centroids.length / dim;
    const numBlocks = Math.ceil(numCodes / BLOCK);
    const places = numBlocks * BLOCK;
    const columns = integers ? new Int8Array(dim * places) : new Float32Array(dim * places);
    const scales = new Float32Array(places).fill(1);
    const bias = new Float32Array(places).fill(NEVER);
    let [length, lost] = [0, 0];
    for (let k = 0; k < numCodes; k++) {
      let greatest = 0;
      for (let d = 0; d < dim; d++)
        greatest = Math.max(greatest, Math.abs(centroids[k * dim + d]! - shift[d]!));
      const scale = integers ? Math.fround(greatest / C_MAX) || 1 : 1;
      let [squares, lostSquares] = [0, 0];
      for (let d = 0; d < dim; d++) {
        const value = centroids[k * dim + d]! - shift[d]!;
        const kept = integers ? Math.round(value / scale) : Math.fround(value);
        columns[d * places + k] = kept;
        squares += value * value;
        lostSquares += (value - kept * scale) ** 2;
      }
      scales[k] = scale;
      bias[k] = -squares / 2;
      length = Math.max(length, Math.sqrt(squares));
      lost = Math.max(lost, Math.sqrt(lostSquares));
    }
    const graph = integers
      ? integerGraph(columns as Int8Array, scales, bias, dim)
      : floatGraph(columns as Float32Array, bias, dim);
    const session = await ort.InferenceSession.create(graph, cpuSession(numThreads));
    return new Filter(session, { dim, shift, integers, length, lost, numBlocks });
  }

  /** @param at where row r of the run begins in data */
  async run(data: Float32Array, at: (r: number) => number, count: number): Promise<Run> {
    const squares = new Float64Array(count);
    const off = new Float64Array(count);
    const input = this.#integers
      ? this.#toIntegers(data, at, squares, off)
      : this.#toFloats(data, at, squares, off);
    const run = new Run(input, squares, off, this.#numBlocks <= BLOCKS_OUT);
    return run.take(await this.#session.run(input));
  }

  #toIntegers(
    data: Float32Array,
    at: (r: number) => number,
    squares: Float64Array,
    off: Float64Array,
  ): ort.InferenceSession.FeedsType {
    const count = squares.length;
    const dim = this.#dim;
    const shift = this.#shift;
    const x = new Uint8Array(ROWS * dim);
    let greatest = 0;
    for (let r = 0; r < count; r++)
      for (let d = 0, from = at(r); d < dim; d++, from++) {
        const size = Math.abs(data[from]! - shift[d]!);
        if (size > greatest) greatest = size;
      }
    const scale = Math.fround(greatest / X_MAX) || 1;
    for (let r = 0, to = 0; r < count; r++) {
      let square = 0;
      let kept = 0;
      let lost = 0;
      for (let d = 0, from = at(r); d < dim; d++, from++, to++) {
        const value = data[from]! - shift[d]!;
        // Halves go up: cutting off is cheaper than Math.round, and nothing is negative here.
        const integer = (value / scale + X_ZERO + 0.5) | 0;
        x[to] = integer;
        const rounded = (integer - X_ZERO) * scale;
        square += value * value;
        kept += rounded * rounded;
        lost += (value - rounded) * (value - rounded);
      }
      squares[r] = square;
      off[r] = this.#off(Math.sqrt(kept), Math.sqrt(lost));
    }
    return {
      x: new ort.Tensor('uint8', x, [ROWS, dim]),
      scale: new ort.Tensor('float32', Float32Array.of(scale), [1]),
    };
  }

  #toFloats(
    data: Float32Array,
    at: (r: number) => number,
    squares: Float64Array,
    off: Float64Array,
  ): ort.InferenceSession.FeedsType {
    const count = squares.length;
    const x = new Float32Array(ROWS * this.#dim);
    const dim = this.#dim;
    for (let r = 0, to = 0; r < count; r++) {
      let square = 0;
      for (let d = 0, from = at(r); d < dim; d++, from++, to++) {
        const value = data[from]! - this.#shift[d]!;
        x[to] = value;
        square += value * value;
      }
      squares[r] = square;
      off[r] = this.#off(Math.sqrt(square), 0);
    }
    return { x: new ort.Tensor('float32', x, [ROWS, dim]) };
  }

  /** e, of a row's length after rounding and the length of what rounding took. */
  #off(kept: number, lost: number): number {
    const length = this.#length;
    const rounding = ROUNDING * length * (kept + length) * Math.sqrt(this.#dim);
    return lost * length + kept * this.#lost + rounding;
  }

  close(): Promise<void> {
    return this.#session.release();
  }
}

/** What is known of the rows of one run. */
class Run {
  readonly input: ort.InferenceSession.FeedsType;
  /** Squared length of each shifted row. */
  readonly squares: Float64Array;
  /** e of each row. */
  readonly off: Float64Array;
  readonly #isAll: boolean;
  #best: Float32Array = new Float32Array(0);
  #blocks: Int32Array = new Int32Array(0);
  #scores: Float32Array = new Float32Array(0);

  constructor(
    input: ort.InferenceSession.FeedsType,
    squares: Float64Array,
    off: Float64Array,
    isAll: boolean,
  ) {
    this.input = input;
    this.squares = squares;
    this.off = off;
    this.#isAll = isAll;
  }

  take({ best, blocks, scores }: ort.InferenceSession.ReturnType): this {
    this.#best = best!.data as Float32Array;
    this.#blocks = blocks!.data as Int32Array;
    this.#scores = scores!.data as Float32Array;
    return this;
  }

  /**
   * The nearest centroid of a row, of equals the lowest.
   * @param x the row as it is, from `at` on
   * @returns -1 where it may be one that did not leave the graph
   */
  nearest(row: number, x: Float32Array, at: number, centroids: Float32Array, dim: number): number {
    const best = this.#best;
    const numOut = best.length / ROWS;
    const begin = row * numOut;
    const end = begin + numOut;
    let first = begin * BLOCK;
    while (this.#scores[first]! < best[begin]!) first++;
    // Nothing can win whose rough score is off by more than e from the true score of the one that looks best.
    const square = this.squares[row]!;
    const off = this.off[row]!;
    let nearest = this.#blocks[begin]! * BLOCK + first - begin * BLOCK;
    let distance = squaredDistance(x, at, centroids, nearest * dim, dim);
    let least = (square - distance) / 2 - off;
    for (let b = begin; b < end && best[b]! >= least; b++) {
      const code = (this.#blocks[b]! - b) * BLOCK;
      for (let i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
        if (this.#scores[i]! < least || i === first) continue;
        const other = squaredDistance(x, at, centroids, (code + i) * dim, dim);
        if (other > distance || (other === distance && code + i > nearest)) continue;
        nearest = code + i;
        distance = other;
        least = (square - distance) / 2 - off;
      }
    }
    return this.#isAll || best[end - 1]! < least ? nearest : -1;
  }
}

/** Inputs x uint8 [R, dim] (128 is zero) and scale float32 [1]; what leaves it: `outputs`. */
function integerGraph(columns: Int8Array, scales: Float32Array, bias: Float32Array, dim: number): Uint8Array {
  const g = new GraphBuilder({ portable: false });
  const places = bias.length;
  const scores = g.emit(
    'MatMulIntegerToFloat',
    [
      g.input('x', [ROWS, dim], 'uint8'),
      g.initializer('columns', [dim, places], 'int8', columns),
      g.input('scale', [1], 'float32'),
      g.initializer('scales', [places], 'float32', scales),
      g.initializer('zero', [1], 'uint8', Uint8Array.of(X_ZERO)),
      g.initializer('noZero', [places], 'int8', new Int8Array(places)),
      g.initializer('bias', [places], 'float32', bias),
    ],
    [ROWS, places],
    'float32',
    {},
    'com.microsoft',
  );
  return outputs(g, scores);
}

/** Input x float32 [R, dim]; what leaves it: `outputs`. */
function floatGraph(columns: Float32Array, bias: Float32Array, dim: number): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const places = bias.length;
  const product = g.matmul(
    g.input('x', [ROWS, dim], 'float32'),
    g.initializer('columns', [dim, places], 'float32', columns),
    false,
    false,
  );
  return outputs(g, g.add(product, g.initializer('bias', [places], 'float32', bias)));
}

/**
 * Of the best blocks, greatest first: best float32 [R, B], their greatest scores; blocks int32 [R, B]; scores float32 [R, B, 64].
 * All scores would be 16 KiB a row, which cost as much as the product.
 */
function outputs(g: GraphBuilder, scores: Value): Uint8Array {
  const numBlocks = scores.shape[1]! / BLOCK;
  const shape = [ROWS, Math.min(BLOCKS_OUT, numBlocks)];
  const blocked = g.reshape(scores, [ROWS, numBlocks, BLOCK]);
  const [best, blocks] = g.emitMany(
    'TopK',
    [g.reduce('ReduceMax', blocked, [2], false), g.int64([shape[1]!])],
    [
      { shape, type: 'float32' },
      { shape, type: 'int64' },
    ],
  ) as [Value, Value];
  g.output('best', best);
  g.output('blocks', g.cast(blocks, 'int32'));
  const places = g.reshape(blocks, [...shape, 1]);
  g.output(
    'scores',
    g.emit('GatherND', [blocked, places], [...shape, BLOCK], 'float32', { batch_dims: int(1) }),
  );
  return g.encode();
}

function meanRow(rows: Float32Array, dim: number): Float64Array {
  const sums = new Float64Array(dim);
  for (let i = 0; i < rows.length; i++) sums[i % dim]! += rows[i]!;
  return sums.map((sum) => sum / (rows.length / dim));
}
