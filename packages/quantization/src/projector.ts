/**
 * The projector of a codebook: a small network, trained on Item2Item pairs, that stands between the vectors m and the first
 * level. It is part of the codebook: whoever quantizes m with a codebook version goes through the same weights. A codebook
 * without one quantizes m itself.
 */
import { cpuSession } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { ROWS_PER_RUN, runInRows } from './nearest-search.ts';
import { QuantizationError, requireFinite, type Vectors } from './vectors.ts';

export interface Projector {
  /** Length of m. */
  inDim: number;
  /** Length of what the levels quantize. */
  outDim: number;
  /** Where its weights are from, such as the artifact of the pairs that it was trained on. */
  trainedOn: string;
  /** ONNX: input x float32 [256, inDim], output z float32 [256, outDim]. */
  model: Uint8Array;
}

/** Hold one per codebook and close it: its weights are memory that the garbage collector does not see. */
export class ProjectorRunner {
  readonly #session: ort.InferenceSession;
  readonly #projector: Projector;

  private constructor(session: ort.InferenceSession, projector: Projector) {
    this.#session = session;
    this.#projector = projector;
  }

  /** @throws QuantizationError where the graph is another one than the projector says */
  static async open(projector: Projector, numThreads = 1): Promise<ProjectorRunner> {
    const { inDim, outDim, model } = projector;
    const session = await ort.InferenceSession.create(model, cpuSession(numThreads)).catch(
      (cause: unknown) => {
        throw new QuantizationError(`The projector is no ONNX model: ${(cause as Error).message}`, { cause });
      },
    );
    const shapes = [...session.inputMetadata, ...session.outputMetadata].map((v) =>
      v.isTensor ? `${v.name} ${v.type} [${v.shape.join(', ')}]` : v.name,
    );
    const expected = [`x float32 [${ROWS_PER_RUN}, ${inDim}]`, `z float32 [${ROWS_PER_RUN}, ${outDim}]`];
    if (shapes.join() === expected.join()) return new ProjectorRunner(session, projector);
    await session.release();
    throw new QuantizationError(
      `Expected a projector of ${expected.join(' to ')}, the model is ${shapes.join(' to ')}`,
    );
  }

  /**
   * What the levels quantize: float32 [N, outDim]. A vector gives the same numbers alone and among others.
   * @throws QuantizationError for vectors of another length, or with numbers that are not finite
   */
  async project(vectors: Vectors): Promise<Vectors> {
    const { inDim, outDim } = this.#projector;
    if (vectors.dim !== inDim)
      throw new QuantizationError(`The projector takes vectors of ${inDim} numbers, got ${vectors.dim}`);
    requireFinite(vectors);
    const data = new Float32Array(vectors.numVectors * outDim);
    await runInRows(this.#session, vectors, ({ z }, from, count) => {
      data.set((z!.data as Float32Array).subarray(0, count * outDim), from * outDim);
    });
    return { data, numVectors: vectors.numVectors, dim: outDim };
  }

  close(): Promise<void> {
    return this.#session.release();
  }
}

/** Whether two codebooks quantize in one space. */
export const sameProjector = (a: Projector | undefined, b: Projector | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && Buffer.compare(a.model, b.model) === 0);
