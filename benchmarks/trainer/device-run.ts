/** What is measured of a training engine on an accelerator: its loss curve beside the CPU's, samples/s and its share of the device's peak. */
import {
  CountingOps,
  type EngineName,
  type EngineStart,
  type Proof83Sizes,
  proof83Loss,
  type TrainingEngine,
} from '@onemall/learning/bench';
import { median } from '../report/result.ts';
import { proof83Batch } from './proof83-data.ts';

const BATCHES = 4;
/** The first steps compile and allocate. */
const WARM_UP_STEPS = 2;
export const DEVICES = ['tensorflow', 'cuda', 'webgpu'] as const satisfies EngineName[];
export type Starters = Readonly<
  Record<(typeof DEVICES)[number], (start: EngineStart) => Promise<TrainingEngine>>
>;

export const startOf = (sizes: Proof83Sizes): EngineStart => ({
  name: 'train',
  pass: (ops) => {
    const loss = proof83Loss(ops, sizes);
    return { loss, metrics: { loss } };
  },
  seed: 1,
  numThreads: 2,
  adamw: {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
    maxGradNorm: Number.POSITIVE_INFINITY,
  },
  rate: () => 1,
});

/** The engines that compute on a device here, started, and of each other one why it does not. */
export async function findDevices(
  starters: Starters,
  start: EngineStart,
): Promise<{ working: { name: string; engine: TrainingEngine }[]; reasons: string[] }> {
  const working: { name: string; engine: TrainingEngine }[] = [];
  const reasons: string[] = [];
  for (const name of DEVICES)
    try {
      const engine = await starters[name](start);
      // TensorFlow starts without a GPU too; that is no device.
      if (engine.onDevice) working.push({ name, engine });
      else {
        reasons.push(`${name}: starts, but on the CPU`);
        await engine.close();
      }
    } catch (error) {
      reasons.push(`${name}: ${(error as Error).message.split('\n')[0]}`);
    }
  return { working, reasons };
}

export interface Curve {
  /** Of every step. */
  losses: number[];
  /** Median, after the first steps. */
  stepMs: number;
}

export async function trainedCurve(
  engine: TrainingEngine,
  sizes: Proof83Sizes,
  steps: number,
): Promise<Curve> {
  const losses: number[] = [];
  const stepMs: number[] = [];
  for (let i = 0; i < steps; i++) {
    const outcome = await engine.step('train', proof83Batch(sizes, 1 + (i % BATCHES)), 1e-3);
    losses.push(outcome.metrics.loss![0]!);
    stepMs.push(outcome.stepMs);
  }
  return { losses, stepMs: median(stepMs.slice(WARM_UP_STEPS)) };
}

/** Greatest relative difference of the mean losses of ten steps. */
export function curveDifference(losses: readonly number[], expected: readonly number[]): number {
  const ofTen = (list: readonly number[]): number[] =>
    Array.from(
      { length: Math.floor(list.length / 10) },
      (_, i) => list.slice(i * 10, i * 10 + 10).reduce((a, b) => a + b, 0) / 10,
    );
  const reference = ofTen(expected);
  return Math.max(...ofTen(losses).map((loss, i) => Math.abs(loss / reference[i]! - 1)));
}

/** Floating-point operations of the matrix products of a step: those of the pass, and two as large for each of them going back. */
export function stepFlops(sizes: Proof83Sizes): number {
  const ops = new CountingOps();
  proof83Loss(ops, sizes);
  return 3 * ops.flops;
}

export interface PeakSizes {
  /** Rows and columns of the matrices. */
  size: number;
  /** Products of the shorter and of the longer chain. */
  products: readonly [number, number];
  rounds: number;
}
export const LARGE: PeakSizes = { size: 4096, products: [4, 36], rounds: 5 };

/**
 * Floating-point operations per second of square float32 matrix products on the engine's device: a chain of them beside a longer
 * one, so that what both copy to the device and wait for falls out.
 * @param nowMs a clock
 * @throws Error where the longer chain takes no longer, or its result is wrong
 */
export async function matrixPeak(
  engine: Pick<TrainingEngine, 'addForward' | 'forward'>,
  { size, products, rounds }: PeakSizes,
  nowMs: () => number = () => performance.now(),
): Promise<number> {
  const [shorter, longer] = products;
  const name = (count: number): string => `products-${count}`;
  for (const count of products)
    await engine.addForward(name(count), (ops) => {
      const right = ops.input('right', [size, size], 'float32');
      let x = ops.input('left', [size, size], 'float32');
      for (let i = 0; i < count; i++) x = ops.matmul(x, right);
      return { mean: ops.scale(ops.sum(x, [0, 1]), 1 / (size * size)) };
    });
  const times = new Map<number, number[]>(products.map((count) => [count, []]));
  // The first round is not counted: kernels are chosen in it.
  for (let round = -1; round < rounds; round++)
    for (const count of products) {
      const feeds = {
        left: new Float32Array(size * size).fill(1),
        right: new Float32Array(size * size).fill(1 / size),
      };
      const startedMs = nowMs();
      const { mean } = await engine.forward(name(count), feeds);
      if (round >= 0) times.get(count)!.push(nowMs() - startedMs);
      if (!(Math.abs(mean![0]! - 1) < 1e-2))
        throw new Error(`${count} products of matrices of mean 1 have mean ${mean![0]}, expected 1`);
    }
  const differenceMs = median(times.get(longer)!) - median(times.get(shorter)!);
  if (!(differenceMs > 0))
    throw new Error(
      `${longer} products took ${differenceMs} ms longer than ${shorter}: this device is too quick for matrices of ${size} rows, measure larger ones`,
    );
  return ((longer - shorter) * 2 * size ** 3) / (differenceMs / 1000);
}
