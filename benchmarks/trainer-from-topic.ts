/**
 * What it costs to train from Kafka instead of from memory: CPU of the trainer's process per sample (fetch, decode, look-ups, batches,
 * step), beside the same steps on samples that lie ready as tensors. One thread computes; the broker is another process. Preset small
 * has the least to compute in a step, medium is what a process with cores of its own trains.
 */
import type { TrainingSample } from '@onemall/contracts';
import { createRetrievalTrainer, type RetrievalPresetName, type SidChildren } from '@onemall/learning';
import { startTestStack, waitFor } from '@onemall/testkit';
import { SampleEncoder } from '../services/trainer/src/adapters/sample-encoder.ts';
import { newFolder, openWorld, startTrainer, type World } from '../services/trainer/test/preloaded.ts';
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
import { cpuSecondsByThread } from './sample-assembly/process-facts.ts';

interface Sizes {
  preset: RetrievalPresetName;
  /** Until V8 has compiled what runs often. */
  warmUpSteps: number;
  steps: number;
  rounds: number;
}
const ROUNDS = Number(process.env.ONEMALL_BENCH_ROUNDS ?? 3);
const SIZES: readonly Sizes[] = [
  { preset: 'small', warmUpSteps: 150, steps: 400, rounds: ROUNDS },
  { preset: 'medium', warmUpSteps: 60, steps: 120, rounds: Math.ceil(ROUNDS / 2) },
];
const BATCH = 64;
const HISTORY = 20;
const BAR = 1.1;
/** The trainer's status is asked for this often: what answers is measured, too. */
const ASK_EVERY_MS = 1_000;

/** CPU ms per sample: of all threads, and by their names. */
interface Cost {
  all: number;
  byThread: Record<string, number>;
}

const benchmark: Benchmark = async (print) => {
  const stack = await startTestStack();
  const world = await openWorld(stack);
  const costs: (Sizes & { fromTopic: Cost[]; fromMemory: Cost[] })[] = [];
  try {
    const most = Math.max(...SIZES.map(({ warmUpSteps, steps }) => warmUpSteps + steps));
    // ASK_EVERY_MS of steps beyond what is waited for
    for (let n = 0; n < (most + 60) * BATCH; n += 1_000) await world.addSamples(positives(n, 1_000));
    for (const sizes of SIZES) {
      const own = { ...sizes, fromTopic: [] as Cost[], fromMemory: [] as Cost[] };
      costs.push(own);
      for (let round = 0; round < sizes.rounds; round++) {
        own.fromTopic.push(await topicRound(world, sizes));
        own.fromMemory.push(await memoryRound(sizes));
        print(`${sizes.preset}, CPU ms per sample: from the topic ${told(own.fromTopic.at(-1)!)}`);
        print(
          `${' '.repeat(sizes.preset.length)}                    from memory    ${told(own.fromMemory.at(-1)!)}`,
        );
      }
    }
  } finally {
    await world.close();
    await stack.stop();
  }
  const rows = costs.map(({ preset, fromTopic, fromMemory }) => ({
    preset,
    cpuMsPerSample: middle(fromTopic),
    memoryCpuMsPerSample: middle(fromMemory),
    ratio: median(fromTopic.map(({ all }, i) => all / fromMemory[i]!.all)),
  }));
  const named = (value: (row: (typeof rows)[number]) => number) =>
    Object.fromEntries(rows.map((row) => [`CPU ms per sample, ${row.preset}`, value(row)]));
  return {
    name: 'trainer-from-topic',
    versions: versions(),
    ours: { ...named((row) => row.cpuMsPerSample), rounds: costs, load: load() },
    peer: { name: 'the same steps from memory', ...named((row) => row.memoryCpuMsPerSample) },
    ratios: Object.fromEntries(
      rows.map((row) => [`CPU per sample against memory, ${row.preset}`, row.ratio]),
    ),
    bars: rows.map(({ preset, ratio }) => ({
      name: `CPU per sample against memory, ${preset}, at most`,
      value: ratio,
      bar: BAR,
      ok: ratio <= BAR,
    })),
  };
};
export default benchmark;

const positives = (first: number, count: number): TrainingSample[] =>
  Array.from({ length: count }, (_, i) => {
    const n = first + i;
    return sample(n, {
      clicked: true,
      clickDelayMs: 20,
      firstPositive: true,
      history: historyOf(n, HISTORY),
    });
  });

const middle = (costs: readonly Cost[]): number => median(costs.map(({ all }) => all));

const told = ({ all, byThread }: Cost): string =>
  `${all.toFixed(3)} (${Object.entries(byThread)
    .filter(([, ms]) => ms >= 0.0005)
    .map(([name, ms]) => `${name} ${ms.toFixed(3)}`)
    .join(', ')})`;

type Seconds = Record<string, number>;
const costOf = (before: Seconds, after: Seconds, samples: number): Cost => {
  const byThread = Object.fromEntries(
    Object.entries(after).map(([name, s]) => [name, (1_000 * (s - (before[name] ?? 0))) / samples]),
  );
  return { all: Object.values(byThread).reduce((a, b) => a + b, 0), byThread };
};

/** A trainer's process, the steps after the warm-up. */
async function topicRound(world: World, { preset, warmUpSteps, steps }: Sizes): Promise<Cost> {
  const folder = await newFolder();
  const never = '100000000';
  const trainer = await startTrainer(world, folder.path, {
    ONEMALL_TRAINER_PRESET: preset,
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
    const reached = async (least: number): Promise<{ trained: number; seconds: Seconds }> => {
      let trained = 0;
      await waitFor(
        async () => {
          trained = (await trainer.status()).values.training_samples ?? 0;
          return trained >= least;
        },
        { timeoutMs: 300_000, what: `${least} trained samples`, intervalMs: ASK_EVERY_MS },
      );
      return { trained, seconds: cpuSecondsByThread(trainer.pid) };
    };
    const before = await reached(warmUpSteps * BATCH);
    const after = await reached((warmUpSteps + steps) * BATCH);
    return costOf(before.seconds, after.seconds, after.trained - before.trained);
  } finally {
    await trainer.stop();
    await folder.remove();
  }
}

const BATCHES_READY = 100;
const everyCode = (count: number) => ({ codes: Int32Array.from({ length: count }, (_, code) => code) });
const [K1, K2, K3] = NUM_CODES;
const EVERY_CODE: SidChildren = [everyCode(K1), everyCode(K2), everyCode(K3)];

/** Batches that lie ready, over and over. */
async function memoryRound({ preset, warmUpSteps, steps }: Sizes): Promise<Cost> {
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
  const ready = Array.from({ length: BATCHES_READY }, (_, n) =>
    positives(n * BATCH, BATCH).map((s) => ({ ...encoder.sample(s)!, children: EVERY_CODE })),
  );
  const trainer = await createRetrievalTrainer({
    ...{ preset, scenarios: SCENARIOS, numCodes: codebooks.numCodes, seed: 1 },
    ...{ batchSize: BATCH, historyLength: HISTORY, engine: { intraOpNumThreads: 1 } },
    maskedAccuracy: true,
    optimizer: { warmupSteps: 100, maxGradNorm: 1, itemTowerRate: 0.3 },
  });
  try {
    const train = async (count: number) => {
      for (let n = 0; n < count; n++) await trainer.step({ samples: ready[n % BATCHES_READY]! });
    };
    await train(warmUpSteps);
    const before = cpuSecondsByThread(process.pid);
    await train(steps);
    return costOf(before, cpuSecondsByThread(process.pid), steps * BATCH);
  } finally {
    await trainer.close();
  }
}
