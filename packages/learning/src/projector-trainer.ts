/** Trains the projector of the item encoder on pairs, and runs it. Import it as @onemall/learning/projector. */
import * as ort from 'onnxruntime-node';
import { OrtEngine } from './engine/ort-engine.ts';
import { cpuSession } from './engine/ort-sessions.ts';
import { compileGradient, compileOptimizer, compilePublished } from './engine/program.ts';
import { type ProjectorShape, projectorNetwork, projectorPass } from './models/projector.ts';
import { learningRateAt, resolveOptimizer } from './training-options.ts';

/** float32 rows. */
export interface Rows {
  data: Float32Array;
  numVectors: number;
  dim: number;
}

export interface ProjectorTraining {
  hidden?: number;
  outDim?: number;
  batchSize?: number;
  steps?: number;
  learningRate?: number;
  temperature?: number;
  seed: number;
  /** Uniform in [0, 1): draws the batches. */
  random: { next(): number };
  numThreads?: number;
  onStep?: (step: number, metrics: { loss: number; hits: number }) => void;
}

export interface Projector {
  shape: ProjectorShape;
  /** A published graph: input x float32 [PROJECTOR_ROWS, inDim], output z float32 [PROJECTOR_ROWS, outDim] of length 1. */
  model: Uint8Array;
}

export const PROJECTOR_ROWS = 256;

/**
 * @param pairs rows of the vectors that belong together, int32 [N, 2]
 * @throws Error for no pairs; DivergedError
 */
export async function trainProjector(
  vectors: Rows,
  pairs: Int32Array,
  options: ProjectorTraining,
): Promise<Projector> {
  const { hidden = 256, outDim = 64, batchSize = 256, steps = 1_000, temperature = 0.07, random } = options;
  const numPairs = pairs.length / 2;
  if (numPairs < 1) throw new Error('A projector is trained on pairs, got none');
  const shape = { inDim: vectors.dim, hidden, outDim };
  const optimizer = resolveOptimizer({}, options.learningRate ?? 1e-3);
  const { gradient, graph } = compileGradient((ops) => projectorPass(ops, shape, batchSize, temperature));
  const program = compileOptimizer(graph, optimizer.adamw, () => 1);
  const engine = await OrtEngine.start(program, options.seed, options.numThreads ?? 1);
  try {
    await engine.addGradient('train', gradient);
    const keys = equalRows(vectors);
    const logQ = logShares(vectors.numVectors, pairs);
    for (let step = 0; step < steps; step++) {
      const sides = { left: new Int32Array(batchSize), right: new Int32Array(batchSize) };
      for (let i = 0; i < batchSize; i++) {
        const pair = Math.floor(random.next() * numPairs) * 2;
        const turned = random.next() < 0.5 ? 1 : 0;
        sides.left[i] = pairs[pair + turned]!;
        sides.right[i] = pairs[pair + 1 - turned]!;
      }
      const feeds = Object.fromEntries(
        Object.entries(sides).flatMap(([name, rows]): [string, Float32Array | Int32Array][] => [
          [name, takeRows(vectors, rows)],
          [`${name}Keys`, rows.map((row) => keys[row]!)],
          [`${name}LogQ`, Float32Array.from(rows, (row) => logQ[row]!)],
        ]),
      );
      // Down to a tenth in a straight line: the last steps settle.
      const rate = learningRateAt(step, optimizer) * (1 - (0.9 * step) / steps);
      const { metrics } = await engine.step('train', feeds, rate);
      options.onStep?.(step + 1, { loss: metrics.loss![0]!, hits: metrics.hits![0]! });
    }
    const { tensors } = await engine.state();
    const model = compilePublished(tensors, (ops) => ({
      z: projectorNetwork(ops, shape, ops.input('x', [PROJECTOR_ROWS, shape.inDim], 'float32')),
    }));
    return { shape, model };
  } finally {
    await engine.close();
  }
}

/** Projects vectors: [N, outDim], of length 1. @throws Error for vectors of another length than the projector's */
export async function project({ shape, model }: Projector, vectors: Rows): Promise<Rows> {
  const { inDim, outDim } = shape;
  if (vectors.dim !== inDim)
    throw new Error(`The projector takes vectors of ${inDim} numbers, got ${vectors.dim}`);
  const session = await ort.InferenceSession.create(model, cpuSession(1));
  try {
    const data = new Float32Array(vectors.numVectors * outDim);
    for (let from = 0; from < vectors.numVectors; from += PROJECTOR_ROWS) {
      const count = Math.min(PROJECTOR_ROWS, vectors.numVectors - from);
      const x = new Float32Array(PROJECTOR_ROWS * inDim);
      x.set(vectors.data.subarray(from * inDim, (from + count) * inDim));
      const { z } = await session.run({ x: new ort.Tensor('float32', x, [PROJECTOR_ROWS, inDim]) });
      data.set((z!.data as Float32Array).subarray(0, count * outDim), from * outDim);
    }
    return { data, numVectors: vectors.numVectors, dim: outDim };
  } finally {
    await session.release();
  }
}

function takeRows({ data, dim }: Rows, rows: Int32Array): Float32Array {
  const out = new Float32Array(rows.length * dim);
  for (const [i, row] of rows.entries()) out.set(data.subarray(row * dim, (row + 1) * dim), i * dim);
  return out;
}

/** The first row that equals each row. */
function equalRows({ data, numVectors, dim }: Rows): Int32Array {
  const first = new Map<string, number>();
  return Int32Array.from({ length: numVectors }, (_, i) => {
    const key = Buffer.from(data.buffer, data.byteOffset + i * dim * 4, dim * 4).toString('latin1');
    const known = first.get(key) ?? i;
    first.set(key, known);
    return known;
  });
}

function logShares(numRows: number, pairs: Int32Array): Float32Array {
  const counts = new Float32Array(numRows);
  for (const row of pairs) counts[row]!++;
  return counts.map((count) => Math.log(Math.max(1, count) / pairs.length));
}
