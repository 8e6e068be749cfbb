/** Rough scores of all centroids for some rows on onnxruntime, by small integers or by floats, and how far they can be off. */
import { cpuSession, GraphBuilder, int, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { BYTE_ZERO } from './row-kernels.ts';

/** Rough scores are looked at in blocks of so many, of which the best few leave the graph. */
export const BLOCK = 64;
export const BLOCKS_OUT = 8;
const X_MAX = 127;
/** Two products with 255 fit into the 16 bits in which processors without VNNI add them up. */
const C_MAX_NARROW = 63;
const C_MAX_WIDE = 127;
/** float32 rounding of a score, as a share of the lengths that went into it, with room to spare. */
const ROUNDING = 4e-6;
/** What lies below the float32 numbers is lost, and beyond them nothing is known. */
const SMALLEST = 1e-36;
const LARGEST = 1e30;
/** Below this, integers would be of no use. */
const SMALLEST_SCALE = 1e-37;
const NEVER = -3e38;

/** Of the rows of one run the best blocks, greatest first. */
export interface BestBlocks {
  /** Greatest score of each: float32 [rows, numOut] */
  best: Float32Array;
  /** int32 [rows, numOut] */
  blocks: Int32Array;
  /** float32 [rows, numOut, 64] */
  scores: Float32Array;
  numOut: number;
  /** No block stayed behind. */
  isAll: boolean;
}

export class RoughScores {
  /** Rows of one run. */
  readonly rows: number;
  readonly #session: ort.InferenceSession;
  readonly #dim: number;
  readonly #numBlocks: number;
  /** Greatest length of a centroid, and of what rounding took from one. */
  readonly #length: number;
  readonly #lost: number;

  private constructor(
    session: ort.InferenceSession,
    made: { rows: number; dim: number; numBlocks: number; length: number; lost: number },
  ) {
    this.#session = session;
    this.rows = made.rows;
    this.#dim = made.dim;
    this.#numBlocks = made.numBlocks;
    this.#length = made.length;
    this.#lost = made.lost;
  }

  /** @param centroids float32 [K, dim], from which `shift` [dim] is taken */
  static async open(
    { centroids, dim, shift }: { centroids: Float32Array; dim: number; shift: Float32Array },
    { integers, rows, numThreads }: { integers: boolean; rows: number; numThreads: number },
  ): Promise<RoughScores> {
    const numCodes = centroids.length / dim;
    const numBlocks = Math.ceil(numCodes / BLOCK);
    const places = numBlocks * BLOCK;
    const columns = integers ? new Int8Array(dim * places) : new Float32Array(dim * places);
    const scales = new Float32Array(places).fill(1);
    const bias = new Float32Array(places).fill(NEVER);
    const most = (await sumsAreWide()) ? C_MAX_WIDE : C_MAX_NARROW;
    let [length, lost] = [0, 0];
    for (let k = 0; k < numCodes; k++) {
      let greatest = 0;
      for (let d = 0; d < dim; d++)
        greatest = Math.max(greatest, Math.abs(centroids[k * dim + d]! - shift[d]!));
      const scale = integers ? scaleOf(greatest, most) : 1;
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
      ? integerGraph(columns as Int8Array, scales, bias, rows, dim)
      : floatGraph(columns as Float32Array, bias, rows, dim);
    const session = await ort.InferenceSession.create(graph, cpuSession(numThreads));
    return new RoughScores(session, { rows, dim, numBlocks, length, lost });
  }

  /** The scale of a run whose greatest number is this. */
  static scaleOf(greatest: number): number {
    return scaleOf(greatest, X_MAX);
  }

  /**
   * e: how far a row's scores can be off.
   * @param kept length of the row after rounding
   * @param lost length of what rounding took
   * @returns infinity where that is not known
   */
  off(kept: number, lost: number): number {
    const length = this.#length;
    const reach = length * (kept + length);
    const rounding = ROUNDING * reach * Math.sqrt(this.#dim) + SMALLEST;
    return reach < LARGEST ? lost * length + kept * this.#lost + rounding : Number.POSITIVE_INFINITY;
  }

  /** @param bytes uint8 [rows, dim]: 128 is zero, a step is `scale` */
  ofIntegers(bytes: Uint8Array, scale: number): Promise<BestBlocks> {
    return this.#run({
      x: new ort.Tensor('uint8', bytes, [this.rows, this.#dim]),
      scale: new ort.Tensor('float32', Float32Array.of(scale), [1]),
    });
  }

  /** @param x float32 [rows, dim], shifted */
  ofFloats(x: Float32Array): Promise<BestBlocks> {
    return this.#run({ x: new ort.Tensor('float32', x, [this.rows, this.#dim]) });
  }

  async #run(input: ort.InferenceSession.FeedsType): Promise<BestBlocks> {
    const { best, blocks, scores } = await this.#session.run(input);
    return {
      best: best!.data as Float32Array,
      blocks: blocks!.data as Int32Array,
      scores: scores!.data as Float32Array,
      numOut: best!.dims[1]!,
      isAll: best!.dims[1] === this.#numBlocks,
    };
  }

  close(): Promise<void> {
    return this.#session.release();
  }
}

const scaleOf = (greatest: number, steps: number): number =>
  greatest < steps * SMALLEST_SCALE ? 1 : Math.fround(greatest / steps);

let wide: Promise<boolean> | null = null;

/** Whether this machine adds products of whole bytes without cutting sums off at 16 bits: asked of the machine itself, by the largest sums there are. */
function sumsAreWide(): Promise<boolean> {
  wide ??= (async () => {
    const [rows, dim] = [16, BLOCK];
    const columns = new Int8Array(dim * BLOCK).map((_, i) => (i % 2 === 0 ? C_MAX_WIDE : -C_MAX_WIDE));
    const ones = new Float32Array(BLOCK).fill(1);
    const graph = integerGraph(columns, ones, new Float32Array(BLOCK), rows, dim);
    const session = await ort.InferenceSession.create(graph, cpuSession(1));
    const x = new ort.Tensor('uint8', new Uint8Array(rows * dim).fill(255), [rows, dim]);
    const { scores } = await session.run({ x, scale: new ort.Tensor('float32', ones.subarray(0, 1), [1]) });
    await session.release();
    return (scores!.data as Float32Array).every(
      (score, i) => score === (i % 2 === 0 ? 1 : -1) * dim * X_MAX * C_MAX_WIDE,
    );
  })();
  return wide;
}

/** Inputs x uint8 [R, dim] (128 is zero) and scale float32 [1]; what leaves it: `outputs`. */
function integerGraph(
  columns: Int8Array,
  scales: Float32Array,
  bias: Float32Array,
  rows: number,
  dim: number,
): Uint8Array {
  const g = new GraphBuilder({ portable: false });
  const places = bias.length;
  const scores = g.emit(
    'MatMulIntegerToFloat',
    [
      g.input('x', [rows, dim], 'uint8'),
      g.initializer('columns', [dim, places], 'int8', columns),
      g.input('scale', [1], 'float32'),
      g.initializer('scales', [places], 'float32', scales),
      g.initializer('zero', [1], 'uint8', Uint8Array.of(BYTE_ZERO)),
      g.initializer('noZero', [places], 'int8', new Int8Array(places)),
      g.initializer('bias', [places], 'float32', bias),
    ],
    [rows, places],
    'float32',
    {},
    'com.microsoft',
  );
  return outputs(g, scores);
}

/** Input x float32 [R, dim]; what leaves it: `outputs`. */
function floatGraph(columns: Float32Array, bias: Float32Array, rows: number, dim: number): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const places = bias.length;
  const product = g.matmul(
    g.input('x', [rows, dim], 'float32'),
    g.initializer('columns', [dim, places], 'float32', columns),
    false,
    false,
  );
  return outputs(g, g.add(product, g.initializer('bias', [places], 'float32', bias)));
}

/** As `BestBlocks`. All scores would be 16 KiB a row, which cost as much as the product. */
function outputs(g: GraphBuilder, scores: Value): Uint8Array {
  const [rows, places] = scores.shape as [number, number];
  const numBlocks = places / BLOCK;
  const shape = [rows, Math.min(BLOCKS_OUT, numBlocks)];
  const blocked = g.reshape(scores, [rows, numBlocks, BLOCK]);
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
  const at = g.reshape(blocks, [...shape, 1]);
  g.output('scores', g.emit('GatherND', [blocked, at], [...shape, BLOCK], 'float32', { batch_dims: int(1) }));
  return g.encode();
}
