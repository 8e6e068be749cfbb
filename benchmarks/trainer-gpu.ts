/**
 * Training on an accelerator: preset proof83 over 200 steps with each device engine that starts here, its loss curve beside the
 * CPU's, and samples/s. Without a device it says so, with the reason of each engine, and measures nothing.
 */
import {
  type EngineStart,
  proof83,
  proof83Loss,
  starters,
  type TrainingEngine,
} from '@onemall/learning/bench';
import { versions } from './report/machine.ts';
import { type Bar, type Benchmark, median } from './report/result.ts';
import { proof83Batch } from './trainer/proof83-data.ts';

const STEPS = 200;
const BATCHES = 4;
const DEVICES = ['tensorflow', 'cuda', 'webgpu'] as const;
/** Relative difference of the mean loss over ten steps. */
const MAX_DIFFERENCE = 0.01;

const start: EngineStart = {
  name: 'train',
  pass: (ops) => {
    const loss = proof83Loss(ops, proof83);
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
};

async function curve(engine: TrainingEngine): Promise<{ losses: number[]; samplesPerS: number }> {
  const losses: number[] = [];
  const stepMs: number[] = [];
  for (let i = 0; i < STEPS; i++) {
    const outcome = await engine.step('train', proof83Batch(proof83, 1 + (i % BATCHES)), 1e-3);
    losses.push(outcome.metrics.loss![0]!);
    stepMs.push(outcome.stepMs);
  }
  return { losses, samplesPerS: (proof83.batchSize / median(stepMs.slice(2))) * 1000 };
}

const tenSteps = (losses: readonly number[]): number[] =>
  Array.from(
    { length: STEPS / 10 },
    (_, i) => losses.slice(i * 10, i * 10 + 10).reduce((a, b) => a + b, 0) / 10,
  );

const benchmark: Benchmark = async (print) => {
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
  for (const reason of reasons) print(`no device through ${reason}`);
  const result = {
    name: 'trainer-gpu',
    versions: versions(),
    peer: null,
    peerNote: 'not measured',
    ratios: {},
  };
  if (working.length === 0)
    return { ...result, ours: { device: 'none: nothing was measured', reasons }, bars: [] };

  const cpu = await starters.cpu(start);
  const expected = await curve(cpu);
  await cpu.close();
  const ours: Record<string, unknown> = { 'cpu samples/s': expected.samplesPerS };
  const bars: Bar[] = [];
  for (const { name, engine } of working) {
    const measured = await curve(engine);
    await engine.close();
    ours[`${name} samples/s`] = measured.samplesPerS;
    const reference = tenSteps(expected.losses);
    const difference = Math.max(
      ...tenSteps(measured.losses).map((loss, i) => Math.abs(loss / reference[i]! - 1)),
    );
    bars.push({
      name: `${name}: loss curve differs from the CPU's by (at most)`,
      value: difference,
      bar: MAX_DIFFERENCE,
      ok: difference <= MAX_DIFFERENCE,
    });
  }
  return { ...result, ours, bars };
};
export default benchmark;
