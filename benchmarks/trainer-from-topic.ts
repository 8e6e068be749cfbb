/**
 * What it costs to train from Kafka instead of from memory: CPU of the trainer's process per sample (fetch, decode, look-ups, batches,
 * step), beside the same steps on samples that lie ready as tensors. Preset small, one thread; the broker is another process.
 */
import type { TrainingSample } from '@onemall/contracts';
import { createRetrievalTrainer } from '@onemall/learning';
import { startTestStack, waitFor } from '@onemall/testkit';
import { SampleEncoder } from '../services/trainer/src/adapters/sample-encoder.ts';
import { newFolder, openWorld, startTrainer } from '../services/trainer/test/preloaded.ts';
import {
  CODEBOOK_VERSION,
  historyOf,
  NUM_CODES,
  SCENARIOS,
  sample,
  sidOf,
} from '../services/trainer/test/synthetic.ts';
import { load, versions } from './report/machine.ts';
import { type Benchmark, median } from './report/result.ts';
import { cpuSecondsOf } from './sample-assembly/process-facts.ts';

const ROUNDS = Number(process.env.ONEMALL_BENCH_ROUNDS ?? 3);
const PRESET = 'small';
const BATCH = 64;
const HISTORY = 20;
const WARM_UP_STEPS = 50;
const STEPS = 250;
const BAR = 1.1;

const benchmark: Benchmark = async (print) => {
  const samples = Array.from({ length: (WARM_UP_STEPS + STEPS + 10) * BATCH }, (_, n) => positive(n));
  const stack = await startTestStack();
  const world = await openWorld(stack);
  const fromTopic: number[] = [];
  const fromMemory: number[] = [];
  try {
    for (let at = 0; at < samples.length; at += 1_000) await world.addSamples(samples.slice(at, at + 1_000));
    for (let round = 0; round < ROUNDS; round++) {
      fromTopic.push(await topicRound(world));
      fromMemory.push(await memoryRound(samples));
      print(`CPU ms per sample: from the topic ${fromTopic.at(-1)}, from memory ${fromMemory.at(-1)}`);
    }
  } finally {
    await world.close();
    await stack.stop();
  }
  const ratio = median(fromTopic.map((ms, i) => ms / fromMemory[i]!));
  return {
    name: 'trainer-from-topic',
    versions: versions(),
    ours: { cpuMsPerSample: median(fromTopic), fromTopic, load: load() },
    peer: { name: 'the same steps from memory', cpuMsPerSample: median(fromMemory), fromMemory },
    ratios: { 'CPU per sample, from the topic to from memory': ratio },
    bars: [{ name: 'CPU per sample against memory, at most', value: ratio, bar: BAR, ok: ratio <= BAR }],
  };
};
export default benchmark;

const positive = (n: number): TrainingSample =>
  sample(n, { clicked: true, clickDelayMs: 20, firstPositive: true, history: historyOf(n, HISTORY) });

/** CPU ms per sample of a trainer's process, of the steps after the warm-up. */
async function topicRound(world: Awaited<ReturnType<typeof openWorld>>): Promise<number> {
  const folder = await newFolder();
  const never = '100000000';
  const trainer = await startTrainer(world, folder.path, {
    ONEMALL_TRAINER_PRESET: PRESET,
    ONEMALL_BATCH_SIZE: String(BATCH),
    ONEMALL_HISTORY_LENGTH: String(HISTORY),
    ONEMALL_RL_MODE: 'off',
    ONEMALL_PUBLISH_EVERY_STEPS: never,
    ONEMALL_PUBLISH_EVERY_MS: never,
    ONEMALL_CHECKPOINT_EVERY_STEPS: never,
    ONEMALL_CHECKPOINT_EVERY_MS: never,
    ONEMALL_METRICS_EVERY_MS: '3000',
  });
  try {
    const reached = async (least: number): Promise<{ trained: number; cpuMs: number }> => {
      let trained = 0;
      await waitFor(
        async () => {
          trained = (await trainer.status()).values.training_samples ?? 0;
          return trained >= least;
        },
        { timeoutMs: 300_000, what: `${least} trained samples`, intervalMs: 250 },
      );
      return { trained, cpuMs: 1_000 * cpuSecondsOf(trainer.pid) };
    };
    const before = await reached(WARM_UP_STEPS * BATCH);
    const after = await reached((WARM_UP_STEPS + STEPS) * BATCH);
    return (after.cpuMs - before.cpuMs) / (after.trained - before.trained);
  } finally {
    await trainer.stop();
    await folder.remove();
  }
}

async function memoryRound(samples: readonly TrainingSample[]): Promise<number> {
  const perScenario = <T>(value: T): Record<string, T> =>
    Object.fromEntries(SCENARIOS.map((s) => [s, value]));
  const codebooks = { codebookVersions: perScenario(CODEBOOK_VERSION), numCodes: perScenario(NUM_CODES) };
  const encoder = new SampleEncoder({
    ...{ scenarios: SCENARIOS, codebooks, historyLength: HISTORY, meter: { add: () => {} } },
    tables: {
      sidOf: (itemId) => {
        const at = itemId.lastIndexOf('-');
        return sidOf(itemId.slice(0, at), Number(itemId.slice(at + 1)));
      },
    },
  });
  const ready = samples.map((s) => encoder.sample(s)!);
  const trainer = await createRetrievalTrainer({
    ...{ preset: PRESET, scenarios: SCENARIOS, numCodes: codebooks.numCodes, seed: 1 },
    ...{ batchSize: BATCH, historyLength: HISTORY, engine: { intraOpNumThreads: 1 } },
    optimizer: { warmupSteps: 100, maxGradNorm: 1, itemTowerRate: 0.3 },
  });
  try {
    const step = (n: number) => trainer.step({ samples: ready.slice(n * BATCH, (n + 1) * BATCH) });
    for (let n = 0; n < WARM_UP_STEPS; n++) await step(n);
    const cpu = process.cpuUsage();
    for (let n = WARM_UP_STEPS; n < WARM_UP_STEPS + STEPS; n++) await step(n);
    const { user, system } = process.cpuUsage(cpu);
    return (user + system) / 1e3 / (STEPS * BATCH);
  } finally {
    await trainer.close();
  }
}
