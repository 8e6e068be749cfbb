/** A codebook's projector, where it has one, and its levels one after the other: vectors in, codes and what each level leaves over out. */
import { cpuSession, GraphBuilder, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { type Codebook, type CodebookLevel, levelDim, NUM_LEVELS } from './codebook.ts';
import { type FsqLevel, fsqLayers } from './fsq.ts';
import { NearestSearch, ROWS_PER_RUN, runInRows } from './nearest-search.ts';
import { ProjectorRunner } from './projector.ts';
import { toSource, type VectorSource } from './vector-source.ts';
import { QuantizationError, requireFinite, type Vectors } from './vectors.ts';

export interface Encoded {
  /** int32 [N, 3] */
  codes: Int32Array;
  /** Per level: mean squared length of what is left after it, as a share of that of the vectors, which are projected ones where the codebook has a projector. */
  relativeErrors: number[];
}

/** Encodes with one codebook, on this thread (`CodebookEncoder`) or on threads of its own. */
export interface VectorEncoder {
  readonly codebook: Codebook;
  /**
   * int32 [N, 3]; a source is read chunk by chunk
   * @throws QuantizationError if the vectors' length is not the codebook's, or a number is not finite
   */
  encode(vectors: Vectors | VectorSource): Promise<Int32Array>;
  /** As `encode`. */
  encodeWithErrors(vectors: Vectors | VectorSource): Promise<Encoded>;
  close(): Promise<void>;
}

/** Vectors that go through all levels before the next ones: few enough to stay in the cache. */
export const VECTORS_AT_ONCE = 1_024;

/** What comes of vectors that go through all levels at once. */
export interface EncodedBlock {
  /** int32 [N, 3] */
  codes: Int32Array;
  /** Sums of squares: of the vectors, and of what each level leaves. */
  squares: Float64Array;
}

/** One level: codes of vectors, from which it takes what the codes stand for. */
interface LevelEncoder {
  /** `rest` becomes what the level leaves of it. @returns int32 [N], and the squares that are left */
  take(rest: Vectors): Promise<[codes: Int32Array, squares: number]>;
  close(): Promise<void>;
}

/**
 * Encodes with one codebook. The codes of a vector do not depend on the vectors beside it.
 * Hold one per codebook and close it: its weights are memory that the garbage collector does not see.
 */
export class CodebookEncoder implements VectorEncoder {
  readonly codebook: Codebook;
  readonly #levels: readonly LevelEncoder[];
  readonly #projector: ProjectorRunner | null;

  private constructor(
    codebook: Codebook,
    levels: readonly LevelEncoder[],
    projector: ProjectorRunner | null,
  ) {
    this.codebook = codebook;
    this.#levels = levels;
    this.#projector = projector;
  }

  /** @throws QuantizationError where the codebook's projector is no model of the lengths that it names */
  static async open(codebook: Codebook, numThreads = 1): Promise<CodebookEncoder> {
    const projector = codebook.projector ? await ProjectorRunner.open(codebook.projector, numThreads) : null;
    const levels: LevelEncoder[] = [];
    for (const level of codebook.levels) levels.push(await openLevel(level, levelDim(codebook), numThreads));
    return new CodebookEncoder(codebook, levels, projector);
  }

  async encode(vectors: Vectors | VectorSource): Promise<Int32Array> {
    return (await this.encodeWithErrors(vectors)).codes;
  }

  async encodeWithErrors(vectors: Vectors | VectorSource): Promise<Encoded> {
    const blocks: EncodedBlock[] = [];
    for await (const chunk of toSource(vectors).chunks())
      for (const block of blocksOf(this.codebook, chunk)) blocks.push(await this.encodeBlock(block));
    return joinBlocks(blocks);
  }

  /** @param block its numbers are used up */
  async encodeBlock(block: Vectors): Promise<EncodedBlock> {
    const rest = this.#projector ? await this.#projector.project(block) : block;
    const codes = new Int32Array(rest.numVectors * NUM_LEVELS);
    const squares = new Float64Array(1 + NUM_LEVELS);
    squares[0] = sumOfSquares(rest.data);
    for (const [l, level] of this.#levels.entries()) {
      const [ofLevel, left] = await level.take(rest);
      for (let i = 0; i < ofLevel.length; i++) codes[i * NUM_LEVELS + l] = ofLevel[i]!;
      squares[1 + l] = left;
    }
    return { codes, squares };
  }

  async close(): Promise<void> {
    await this.#projector?.close();
    for (const level of this.#levels) await level.close();
  }
}

/** A chunk in blocks of numbers of their own. @throws as `VectorEncoder.encode` */
export function* blocksOf(codebook: Codebook, chunk: Vectors): Generator<Vectors> {
  const { data, numVectors, dim } = chunk;
  if (dim !== codebook.dim)
    throw new QuantizationError(
      `Codebook ${codebook.version} of ${codebook.scenario} takes vectors of ${codebook.dim} numbers, got ${dim}`,
    );
  for (let from = 0; from < numVectors; from += VECTORS_AT_ONCE) {
    const count = Math.min(VECTORS_AT_ONCE, numVectors - from);
    const rows = data.subarray(from * dim, (from + count) * dim);
    // No sum of squares of float32 numbers is too large for a float64.
    if (!Number.isFinite(sumOfSquares(rows))) requireFinite(chunk);
    yield { data: rows.slice(), numVectors: count, dim };
  }
}

export function joinBlocks(blocks: readonly EncodedBlock[]): Encoded {
  const codes = new Int32Array(blocks.reduce((sum, block) => sum + block.codes.length, 0));
  const squares = new Float64Array(1 + NUM_LEVELS);
  let at = 0;
  for (const block of blocks) {
    codes.set(block.codes, at);
    at += block.codes.length;
    for (let i = 0; i < squares.length; i++) squares[i]! += block.squares[i]!;
  }
  const [whole, ...left] = squares as unknown as [number, ...number[]];
  return { codes, relativeErrors: left.map((sum) => (whole > 0 ? sum / whole : 0)) };
}

/** Opens an encoder of this thread for one use. */
export async function withEncoder<T>(
  codebook: Codebook,
  use: (encoder: CodebookEncoder) => Promise<T>,
  numThreads = 1,
): Promise<T> {
  const encoder = await CodebookEncoder.open(codebook, numThreads);
  try {
    return await use(encoder);
  } finally {
    await encoder.close();
  }
}

/** Codes of vectors that are encoded once: int32 [N, 3]. @throws as `CodebookEncoder.encode` */
export const encode = (codebook: Codebook, vectors: Vectors): Promise<Int32Array> =>
  withEncoder(codebook, (encoder) => encoder.encode(vectors));

async function openLevel(level: CodebookLevel, dim: number, numThreads: number): Promise<LevelEncoder> {
  if (level.kind === 'fsq') {
    const session = await ort.InferenceSession.create(fsqGraph(level, dim), cpuSession(numThreads));
    return {
      async take(rest) {
        const codes = new Int32Array(rest.numVectors);
        let squares = 0;
        await runInRows(session, rest, (outputs, from, count) => {
          codes.set((outputs.code!.data as Int32Array).subarray(0, count), from);
          const left = rest.data.subarray(from * dim, (from + count) * dim);
          squares += subtract(left, outputs.restored!.data as Float32Array);
        });
        return [codes, squares];
      },
      close: () => session.release(),
    };
  }
  const { centroids } = level;
  const search = await NearestSearch.open(centroids, dim, numThreads);
  return {
    async take(rest) {
      const codes = await search.search(rest);
      return [codes, subtractCentroids(rest, codes, centroids)];
    },
    close: () => search.close(),
  };
}

// The loops over all numbers are functions of their own: V8 does not compile those of an async function while they run.

/** @returns the sum of squares of what is left in `data` */
function subtract(data: Float32Array, restored: Float32Array): number {
  let sum = 0;
  for (let at = 0; at < data.length; at++) {
    const left = Math.fround(data[at]! - restored[at]!);
    data[at] = left;
    sum += left * left;
  }
  return sum;
}

/** @returns as `subtract` */
function subtractCentroids({ data, dim }: Vectors, codes: Int32Array, centroids: Float32Array): number {
  let sum = 0;
  for (let i = 0, at = 0; i < codes.length; i++)
    for (let from = codes[i]! * dim, end = from + dim; from < end; from++, at++) {
      const left = Math.fround(data[at]! - centroids[from]!);
      data[at] = left;
      sum += left * left;
    }
  return sum;
}

function sumOfSquares(data: Float32Array): number {
  let sum = 0;
  for (let at = 0; at < data.length; at++) sum += data[at]! * data[at]!;
  return sum;
}

/** Input x float32 [R, dim]; outputs code int32 [R, 1] and restored float32 [R, dim]. */
function fsqGraph(level: FsqLevel, dim: number): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const { code, restored } = emitFsq(g, g.input('x', [ROWS_PER_RUN, dim], 'float32'), level, 'fsq');
  g.output('code', code);
  g.output('restored', restored);
  return g.encode();
}

/** As Activations of fsq.ts: bit i of a code is set where the i-th squeezed number is not negative. */
function emitFsq(g: GraphBuilder, x: Value, level: FsqLevel, name: string): { code: Value; restored: Value } {
  const { bits, hidden, scale } = level;
  const dim = x.shape[1]!;
  const layers = fsqLayers(level.weights, dim, hidden, bits);
  const layer = (input: Value, w: Float32Array, b: Float32Array, at: string): Value => {
    const weights = g.initializer(`${name}.${at}`, [b.length, w.length / b.length], 'float32', w);
    const bias = g.initializer(`${name}.${at}.bias`, [b.length], 'float32', b);
    return g.add(g.matmul(input, weights, false, true), bias);
  };
  const h1 = g.unary('Tanh', layer(g.div(x, g.float(scale)), layers.w1, layers.b1, 'w1'));
  // The sign of tanh(z) is that of z.
  const set = g.compare('GreaterOrEqual', layer(h1, layers.w2, layers.b2, 'w2'), g.float(0));
  const places = g.constant(
    Float32Array.from({ length: bits }, (_, b) => 2 ** b),
    [1, bits],
    'float32',
  );
  const code = g.cast(g.reduce('ReduceSum', g.mul(set, places), [1], true), 'int32');
  const signs = g.sub(g.mul(set, g.float(2)), g.float(1));
  const h2 = g.unary('Tanh', layer(signs, layers.v1, layers.c1, 'v1'));
  return { code, restored: g.mul(layer(h2, layers.v2, layers.c2, 'v2'), g.float(scale)) };
}
