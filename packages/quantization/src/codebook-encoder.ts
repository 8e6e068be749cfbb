/**
 * A codebook's projector, where it has one, and all its levels as one graph on onnxruntime: vectors in, codes and what each
 * level leaves over out.
 */
import { cpuSession, GraphBuilder, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { type Codebook, type CodebookLevel, levelDim, NUM_LEVELS } from './codebook.ts';
import { type FsqLevel, fsqLayers } from './fsq.ts';
import { emitNearest, ROWS_PER_RUN, runInRows } from './nearest-search.ts';
import { ProjectorRunner } from './projector.ts';
import { toSource, type VectorSource } from './vector-source.ts';
import { QuantizationError, requireFinite, type Vectors } from './vectors.ts';

export interface Encoded {
  /** int32 [N, 3] */
  codes: Int32Array;
  /** Per level: mean squared length of what is left after it, as a share of that of the vectors, which are projected ones where the codebook has a projector. */
  relativeErrors: number[];
}

/**
 * Encodes with one codebook. The codes of a vector do not depend on the vectors beside it.
 * Hold one per codebook and close it: its weights are memory that the garbage collector does not see.
 */
export class CodebookEncoder {
  readonly codebook: Codebook;
  readonly #session: ort.InferenceSession;
  readonly #projector: ProjectorRunner | null;

  private constructor(codebook: Codebook, session: ort.InferenceSession, projector: ProjectorRunner | null) {
    this.codebook = codebook;
    this.#session = session;
    this.#projector = projector;
  }

  /** @throws QuantizationError where the codebook's projector is no model of the lengths that it names */
  static async open(codebook: Codebook, numThreads = 1): Promise<CodebookEncoder> {
    const projector = codebook.projector ? await ProjectorRunner.open(codebook.projector, numThreads) : null;
    const session = await ort.InferenceSession.create(encoderGraph(codebook), cpuSession(numThreads));
    return new CodebookEncoder(codebook, session, projector);
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
    const left = new Float64Array(NUM_LEVELS);
    let whole = 0;
    for await (const chunk of toSource(vectors).chunks()) {
      this.#check(chunk);
      const codes = new Int32Array(chunk.numVectors * NUM_LEVELS);
      const quantized = this.#projector ? await this.#projector.project(chunk) : chunk;
      await runInRows(this.#session, quantized, (outputs, from, count) => {
        const errors = outputs.errors!.data as Float32Array;
        const ofRows = (outputs.codes!.data as Int32Array).subarray(0, count * NUM_LEVELS);
        codes.set(ofRows, from * NUM_LEVELS);
        for (let i = 0; i < count * (NUM_LEVELS + 1); i++) {
          const level = i % (NUM_LEVELS + 1);
          if (level === 0) whole += errors[i]!;
          else left[level - 1]! += errors[i]!;
        }
      });
      parts.push(codes);
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
    await this.#session.release();
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

/** Input x float32 [R, levelDim]; outputs codes int32 [R, 3], errors float32 [R, 4]: |x|^2, then what each level leaves. */
function encoderGraph(codebook: Codebook): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  let rest = g.input('x', [ROWS_PER_RUN, levelDim(codebook)], 'float32');
  const squares = (x: Value): Value => g.reduce('ReduceSum', g.mul(x, x), [1], true);
  const codes: Value[] = [];
  const errors = [squares(rest)];
  for (const [l, level] of codebook.levels.entries()) {
    const { code, restored } = emitLevel(g, rest, level, `level${l + 1}`);
    codes.push(g.reshape(code, [ROWS_PER_RUN, 1]));
    rest = g.sub(rest, restored);
    errors.push(squares(rest));
  }
  g.output('codes', g.concat(codes, 1));
  g.output('errors', g.concat(errors, 1));
  return g.encode();
}

function emitLevel(
  g: GraphBuilder,
  x: Value,
  level: CodebookLevel,
  name: string,
): { code: Value; restored: Value } {
  if (level.kind === 'fsq') return emitFsq(g, x, level, name);
  const dim = x.shape[1]!;
  const code = emitNearest(g, x, level.centroids);
  const table = g.initializer(`${name}.table`, [level.numCodes, dim], 'float32', level.centroids);
  return { code, restored: g.rows(table, code) };
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
