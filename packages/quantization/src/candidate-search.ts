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
import type { Place } from '@onemall/learning/wasm';
import { type BestBlocks, BLOCK, BLOCKS_OUT, RoughScores } from './rough-scores.ts';
import { paddedDim, RowKernels, SCORES_AT_ONCE } from './row-kernels.ts';
import type { Vectors } from './vectors.ts';

const ROWS = 128;
/** Of 1,000 rows a few dozen need floats: the rest of a run is wasted. */
const FLOAT_ROWS = 32;
const FLOAT_BYTES = 4;

/** What is known of the rows of one run. */
interface Run {
  /** Squared length of each shifted row. */
  squares: Float64Array;
  /** e of each row. */
  off: Float64Array;
}

interface Places {
  centroids: Place;
  shift: Place;
  /** Rows of a run as they are. Whatever waits for a product must not rely on it: searches may overlap. */
  x: Place;
  bytes: Place;
  scores: Place;
}

export class CandidateSearch {
  readonly #kernels: RowKernels;
  readonly #at: Places;
  readonly #numCodes: number;
  readonly #dim: number;
  readonly #numThreads: number;
  readonly #integers: RoughScores;
  #floats: Promise<RoughScores> | null = null;

  private constructor(
    kernels: RowKernels,
    at: Places,
    made: { numCodes: number; dim: number; numThreads: number; integers: RoughScores },
  ) {
    this.#kernels = kernels;
    this.#at = at;
    this.#numCodes = made.numCodes;
    this.#dim = made.dim;
    this.#numThreads = made.numThreads;
    this.#integers = made.integers;
  }

  /** @param centroids float32 [K, dim], K at least 512; copied */
  static async open(centroids: Float32Array, dim: number, numThreads: number): Promise<CandidateSearch> {
    const numCodes = centroids.length / dim;
    const wide = paddedDim(dim);
    const kernels = RowKernels.take();
    const [rows, shift, x, bytes, scores] = kernels.reserve([
      numCodes * wide,
      wide,
      ROWS * wide,
      (ROWS * wide) / FLOAT_BYTES,
      ROWS * BLOCKS_OUT * BLOCK,
    ]) as [Place, Place, Place, Place, Place];
    const at = { centroids: rows, shift, x, bytes, scores };
    copyRows(centroids, dim, 0, numCodes, kernels.floats(rows), wide);
    kernels.floats(shift).set(meanRow(centroids, dim));
    const integers = await RoughScores.open(
      { centroids: kernels.floats(rows), dim: wide, shift: kernels.floats(shift) },
      { integers: true, rows: ROWS, numThreads },
    );
    return new CandidateSearch(kernels, at, { numCodes, dim, numThreads, integers });
  }

  /** int32 [N] */
  async search(vectors: Vectors): Promise<Int32Array> {
    const codes = new Int32Array(vectors.numVectors);
    let left = await this.#through(this.#integers, vectors, null, codes);
    if (left.length === 0) return codes;
    this.#floats ??= this.#openFloats();
    left = await this.#through(await this.#floats, vectors, left, codes);
    for (const i of left) {
      this.#load(vectors, null, i, 1);
      codes[i] = this.#nearestOfAll();
    }
    return codes;
  }

  /** Its places are used again: no search may be under way. */
  async close(): Promise<void> {
    await this.#integers.close();
    await (await this.#floats)?.close();
    this.#kernels.giveBack();
  }

  #openFloats(): Promise<RoughScores> {
    const wide = paddedDim(this.#dim);
    const { centroids, shift } = this.#at;
    return RoughScores.open(
      { centroids: this.#kernels.floats(centroids), dim: wide, shift: this.#kernels.floats(shift) },
      { integers: false, rows: FLOAT_ROWS, numThreads: this.#numThreads },
    );
  }

  /** Codes of these rows (all where null). @returns the rows that have too many candidates */
  async #through(
    rough: RoughScores,
    vectors: Vectors,
    rows: readonly number[] | null,
    codes: Int32Array,
  ): Promise<number[]> {
    const left: number[] = [];
    const count = rows?.length ?? vectors.numVectors;
    for (let from = 0; from < count; from += rough.rows) {
      const inRun = Math.min(rough.rows, count - from);
      const run = { squares: new Float64Array(inRun), off: new Float64Array(inRun) };
      this.#load(vectors, rows, from, inRun);
      const blocks =
        rough === this.#integers
          ? await rough.ofIntegers(...this.#toIntegers(run))
          : await rough.ofFloats(this.#toFloats(rough, run));
      this.#load(vectors, rows, from, inRun);
      this.#secondLook(run, blocks, (r, code) => {
        const row = rows ? rows[from + r]! : from + r;
        if (code < 0) left.push(row);
        else codes[row] = code;
      });
    }
    return left;
  }

  #load({ data }: Vectors, rows: readonly number[] | null, from: number, count: number): void {
    const dim = this.#dim;
    const wide = paddedDim(dim);
    const x = this.#kernels.floats(this.#at.x);
    if (rows === null) copyRows(data, dim, from, count, x, wide);
    else
      for (let r = 0; r < count; r++)
        copyRows(data, dim, rows[from + r]!, 1, x.subarray(r * wide, (r + 1) * wide), wide);
  }

  #toIntegers(run: Run): [bytes: Uint8Array, scale: number] {
    const kernels = this.#kernels;
    const { x, shift, bytes } = this.#at;
    const size = paddedDim(this.#dim) * FLOAT_BYTES;
    const count = run.off.length;
    let greatest = 0;
    for (let r = 0; r < count; r++)
      greatest = Math.max(greatest, kernels.greatest(x.offset + r * size, shift.offset, size));
    const scale = RoughScores.scaleOf(greatest);
    for (let r = 0; r < count; r++) {
      const to = bytes.offset + (r * size) / FLOAT_BYTES;
      const [square, kept, lost] = kernels.round(x.offset + r * size, shift.offset, to, size, scale);
      run.squares[r] = square!;
      run.off[r] = this.#integers.off(Math.sqrt(kept!), Math.sqrt(lost!));
    }
    return [kernels.bytes(bytes).slice(), scale];
  }

  #toFloats(rough: RoughScores, run: Run): Float32Array {
    const wide = paddedDim(this.#dim);
    const x = this.#kernels.floats(this.#at.x);
    const shift = this.#kernels.floats(this.#at.shift);
    const shifted = new Float32Array(rough.rows * wide);
    for (let r = 0, at = 0; r < run.off.length; r++) {
      let square = 0;
      for (let d = 0; d < wide; d++, at++) {
        const value = x[at]! - shift[d]!;
        shifted[at] = value;
        square += value * value;
      }
      run.squares[r] = square;
      run.off[r] = rough.off(Math.sqrt(square), 0);
    }
    return shifted;
  }

  /** @param take told the nearest centroid of each row, of equals the lowest; -1 where it may be one that did not leave the graph */
  #secondLook(run: Run, found: BestBlocks, take: (row: number, code: number) => void): void {
    this.#kernels.floats(this.#at.scores).set(found.scores);
    for (let r = 0; r < run.off.length; r++)
      take(r, run.off[r]! < Number.POSITIVE_INFINITY ? this.#nearest(r, run, found) : -1);
  }

  #nearest(row: number, run: Run, { best, blocks, numOut, isAll }: BestBlocks): number {
    const kernels = this.#kernels;
    const size = paddedDim(this.#dim) * FLOAT_BYTES;
    const x = this.#at.x.offset + row * size;
    const centroids = this.#at.centroids.offset;
    const square = run.squares[row]!;
    const off = run.off[row]!;
    const begin = row * numOut;
    const end = begin + numOut;
    // Nothing can win whose rough score is off by more than e from the true score of the one that looks best.
    const looksBest = this.#firstNotBelow(begin, best[begin]!) + blocks[begin]! * BLOCK;
    let nearest = looksBest;
    let distance = kernels.distance(x, centroids + nearest * size, size);
    let least = (square - distance) / 2 - off;
    for (let b = begin; b < end && best[b]! >= least; b++)
      for (let part = 0; part < BLOCK; part += SCORES_AT_ONCE) {
        const first = blocks[b]! * BLOCK + part;
        for (let mask = this.#notBelow(b, part, least); mask !== 0; mask &= mask - 1) {
          const code = first + lowestBit(mask);
          if (code === looksBest) continue;
          const other = kernels.distance(x, centroids + code * size, size);
          if (other > distance || (other === distance && code > nearest)) continue;
          nearest = code;
          distance = other;
          least = (square - distance) / 2 - off;
        }
      }
    return isAll || best[end - 1]! < least ? nearest : -1;
  }

  /** Bits of the 32 scores from `part` on in a block of the run. */
  #notBelow(block: number, part: number, limit: number): number {
    return this.#kernels.above(this.#at.scores.offset + (block * BLOCK + part) * FLOAT_BYTES, limit);
  }

  #firstNotBelow(block: number, limit: number): number {
    const first = this.#notBelow(block, 0, limit);
    if (first !== 0) return lowestBit(first);
    return SCORES_AT_ONCE + lowestBit(this.#notBelow(block, SCORES_AT_ONCE, limit));
  }

  /** Of the first row that is loaded, one by one. */
  #nearestOfAll(): number {
    const size = paddedDim(this.#dim) * FLOAT_BYTES;
    const { x, centroids } = this.#at;
    let nearest = 0;
    let least = Number.POSITIVE_INFINITY;
    for (let k = 0; k < this.#numCodes; k++) {
      const distance = this.#kernels.distance(x.offset, centroids.offset + k * size, size);
      if (distance >= least) continue;
      least = distance;
      nearest = k;
    }
    return nearest;
  }
}

const lowestBit = (mask: number): number => 31 - Math.clz32(mask & -mask);

/** Rows from row `from` on, to the beginning of `to`, each `wide` numbers from the next. */
function copyRows(
  rows: Float32Array,
  dim: number,
  from: number,
  count: number,
  to: Float32Array,
  wide: number,
): void {
  if (dim === wide) to.set(rows.subarray(from * dim, (from + count) * dim));
  else
    for (let r = 0; r < count; r++) to.set(rows.subarray((from + r) * dim, (from + r + 1) * dim), r * wide);
}

function meanRow(rows: Float32Array, dim: number): Float64Array {
  const sums = new Float64Array(dim);
  for (let i = 0; i < rows.length; i++) sums[i % dim]! += rows[i]!;
  return sums.map((sum) => sum / (rows.length / dim));
}
