/**
 * Crashes put into the run: whatever the moment, the weights of the end are those of a run without crashes. The learner
 * here adds each sample to sums whose last bits depend on order and on the cut into batches; its weights also count.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import type { RewardBatch, TrainingSample } from '@onemall/contracts';
import {
  createLogger,
  FolderArtifactStore,
  SeededRandom,
  StageMeter,
  systemClock,
} from '@onemall/service-kit';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { type OpenLearner, startTrainer } from '../src/compose.ts';
import { trainerConfig } from '../src/config.ts';
import type { Learner, LearnerState } from '../src/learner.ts';
import { newestCheckpoint, newFolder, openWorld, samplesFrom, type World } from './preloaded.ts';
import { rewardGroup } from './synthetic.ts';

const MODEL = 'retriever';
const BATCH = 7;
const samples = samplesFrom(0, 400);
const trained = samples.filter((s) => s.firstPositive);
const SLOTS = samples.length;

/** Moments of a step at which a process can die. */
const MOMENTS = ['before the step', 'after the step', 'before a checkpoint', 'while publishing'] as const;
interface Crash {
  moment: (typeof MOMENTS)[number];
  /** The crash comes at the n-th such moment of the process. */
  at: number;
}
class CrashError extends Error {
  override name = 'CrashError';
}

/** weights: [0] a float sum that depends on order and batches, [1 + i] how often sample i was trained. */
class CountingLearner implements Learner<number[]> {
  readonly kind = 'RETRIEVER';
  readonly model = MODEL;
  readonly batchSize = BATCH;
  readonly codebookVersions = {};
  #weights = new Float32Array(1 + SLOTS);
  #left: Map<Crash['moment'], number>;

  constructor(crash: Crash | null) {
    this.#left = new Map(crash ? [[crash.moment, crash.at]] : []);
  }
  #pass(moment: Crash['moment']): void {
    const left = this.#left.get(moment);
    if (left === undefined) return;
    if (left === 0) throw new CrashError(moment);
    this.#left.set(moment, left - 1);
  }
  leavesOut(sample: TrainingSample) {
    return sample.firstPositive ? null : ('not_first_positive' as const);
  }
  encode(batch: readonly TrainingSample[]): number[] {
    return batch.map((s) => Number(s.exposure.requestId.slice(1)));
  }
  async step(batch: number[], groups: readonly RewardBatch[]) {
    this.#pass('before the step');
    for (const n of batch) {
      this.#weights[1 + n]!++;
      this.#weights[0] = this.#weights[0]! * 0.999 + Math.fround(Math.sin(n));
    }
    this.#weights[0] = this.#weights[0]! * 0.99;
    for (const { requestId } of groups)
      this.#weights[0] = this.#weights[0]! * 0.98 + Number(requestId.slice(1)) / 64;
    this.#pass('after the step');
    return { loss: 1, gradNorm: 1, stepMs: 1 };
  }
  async save(): Promise<LearnerState> {
    this.#pass('before a checkpoint');
    return { trainer: { tensors: new Map([['w', this.#weights.slice()]]), scalars: {} }, extra: null };
  }
  async restore({ trainer }: LearnerState): Promise<void> {
    this.#weights = trainer.tensors.get('w')!.slice();
  }
  publishable() {
    return null;
  }
  async exportFiles(): Promise<Map<string, Uint8Array>> {
    this.#pass('while publishing');
    return new Map([['w', new Uint8Array(this.#weights.slice().buffer)]]);
  }
  figures() {
    return [];
  }
  async close() {}
}

let stack: TestStack;
let world: World;
before(async () => {
  stack = await startTestStack();
  world = await openWorld(stack);
  await world.addSamples(samples);
  await world.send(
    Array.from({ length: 30 }, (_, n) => ({
      topic: 'reward-batches' as const,
      key: `g${n}`,
      value: rewardGroup(n),
    })),
  );
});
after(async () => {
  await world?.close();
  await stack?.stop();
});

/** Runs until all is trained or the crash comes. @returns true when it crashed */
async function run(folder: string, crash: Crash | null): Promise<boolean> {
  const config = trainerConfig({
    ...world.env,
    ONEMALL_DATA_DIR: path.join(folder, 'data'),
    ONEMALL_CHECKPOINT_EVERY_STEPS: '5',
    ONEMALL_PUBLISH_EVERY_STEPS: '10',
    ONEMALL_MAX_BATCH_WAIT_MS: '50',
  });
  const stopping = new AbortController();
  const meter = new StageMeter('trainer-retriever');
  let failure: unknown;
  const opened: OpenLearner = async () => ({
    learner: new CountingLearner(crash),
    tables: null,
    gate: null,
    codebooks: {
      codebookVersions: { live_stream: 1, product_card: 1, short_video: 1 },
      numCodes: { live_stream: [16, 16, 16], product_card: [16, 16, 16], short_video: [16, 16, 16] },
    },
  });
  const service = await startTrainer(
    {
      config,
      log: createLogger('test', 'fatal'),
      clock: systemClock,
      meter,
      artifacts: new FolderArtifactStore(path.join(folder, 'artifacts')),
      fail: (error) => {
        failure ??= error;
        stopping.abort();
      },
      stopping: stopping.signal,
    },
    opened,
  );
  const done = () => (meter.status('').values.training_samples ?? 0) >= trained.length;
  try {
    await waitFor(() => failure !== undefined || done(), {
      timeoutMs: 30_000,
      what: 'the end or the crash',
    });
  } finally {
    stopping.abort();
    await service.stop();
  }
  if (failure !== undefined && !(failure instanceof CrashError)) throw failure;
  return failure !== undefined;
}

test('with crashes at any moment every sample counts once, and the sums are the same to the last bit', async (t) => {
  const calm = await newFolder();
  t.after(() => calm.remove());
  assert.equal(await run(calm.path, null), false);
  const want = await newestCheckpoint(calm.path, MODEL);
  const weights = want.tensors.get('w')!;
  for (const s of samples)
    assert.equal(weights[1 + Number(s.exposure.requestId.slice(1))], s.firstPositive ? 1 : 0);

  const random = new SeededRandom(7);
  for (let schedule = 0; schedule < 2; schedule++) {
    const folder = await newFolder();
    t.after(() => folder.remove());
    const crashes: Crash[] = MOMENTS.map((moment) => ({
      moment,
      at: random.int(moment.includes('step') ? 9 : 2),
    }));
    let happened = 0;
    for (const crash of random.shuffle(crashes)) if (await run(folder.path, crash)) happened++;
    await run(folder.path, null);
    const got = await newestCheckpoint(folder.path, MODEL);
    const told = `schedule ${schedule}: ${JSON.stringify(crashes)}`;
    assert.ok(happened >= 2, told);
    assert.deepEqual(got.tensors.get('w'), weights, told);
    assert.deepEqual(got.checkpoint.progress.usedRequestIds, want.checkpoint.progress.usedRequestIds, told);
    assert.equal(got.checkpoint.progress.step, want.checkpoint.progress.step, told);
  }
});
