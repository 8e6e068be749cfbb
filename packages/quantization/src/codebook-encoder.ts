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

/** Vectors that go through all levels before the next ones: few enough to stay in the cache. */
const AT_ONCE = 1_024;

/** One level: codes of vectors, from which it takes what the codes stand for. */
interface LevelEncoder {
  /** `rest` becomes what the level leaves of it. @returns int32 [N] */
  take(rest: Vectors): Promise<Int32Array>;
  close(): Promise<void>;
}

/**
 * Encodes with one codebook. The codes of a vector do not depend on the vectors beside it.
 * Hold one per codebook and close it: its weights are memory that the garbage collector does not see.
 */
export class CodebookEncoder {
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

  /**
   * int32 [N, 3]
   * @throws QuantizationError if the vectors' length is not the codebook's, or a number is not finite
   */
  async encode(vectors: Vectors): Promise<Int32Array> {
    return (await this.encodeWithErrors(vectors)).codes;
  }

  /** Reads a source chunk by chunk; only its codes are kept. @throws as `encode` */
  async encodeWithErrors(vectors: Vectors | VectorSource): Promise<Encoded> {
    const parts: Int32Array[] = [];
    let whole = 0;
    const left = new Float64Array(NUM_LEVELS);
    for await (const chunk of toSource(vectors).chunks()) {
      this.#check(chunk);
      const { data, numVectors, dim } = this.#projector ? await this.#projector.project(chunk) : chunk;
      for (let from = 0; from < numVectors; from += AT_ONCE) {
        const count = Math.min(AT_ONCE, numVectors - from);
        const rest = { data: data.slice(from * dim, (from + count) * dim), numVectors: count, dim };
        const codes = new Int32Array(count * NUM_LEVELS);
        whole += squares(rest);
        for (const [l, level] of this.#levels.entries()) {
          const ofLevel = await level.take(rest);
          for (let i = 0; i < count; i++) codes[i * NUM_LEVELS + l] = ofLevel[i]!;
          left[l]! += squares(rest);
        }
        parts.push(codes);
      }
    }
    const codes = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      codes.set(part, at);
      at += part.length;
    }
    return { codes, relativeErrors: Array.from(left, (sum) => (whole > 0 ? sum / whole : 0)) };
  }

  async close(): Promise<void> {
    await this.#projector?.close();
    for (const level of this.#levels) await level.close();
  }

  #check(vectors: Vectors): void {
    const { scenario, version, dim } = this.codebook;
    if (vectors.dim !== dim)
      throw new QuantizationError(
        `Codebook ${version} of ${scenario} takes vectors of ${dim} numbers, got ${vectors.dim}`,
      );
    requireFinite(vectors);
  }
}

/** Opens an encoder for one use. */
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
        await runInRows(session, rest, (outputs, from, count) => {
          codes.set((outputs.code!.data as Int32Array).subarray(0, count), from);
          const restored = outputs.restored!.data as Float32Array;
          for (let i = 0, at = from * dim; i < count * dim; i++, at++) rest.data[at]! -= restored[i]!;
        });
        return codes;
      },
      close: () => session.release(),
    };
  }
  const { centroids } = level;
  const search = await NearestSearch.open(centroids, dim, numThreads);
  return {
    async take(rest) {
      const codes = await search.search(rest);
      for (let i = 0, at = 0; i < rest.numVectors; i++)
        for (let from = codes[i]! * dim, end = from + dim; from < end; from++, at++)
          rest.data[at]! -= centroids[from]!;
      return codes;
    },
    close: () => search.close(),
  };
}

function squares({ data }: Vectors): number {
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
