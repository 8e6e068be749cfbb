/** Trains the OneMall retrieval model over the positives of a log. */
import {
  createRetrievalTrainer,
  type ItemTowerRuntime,
  loadItemTower,
  loadPolicy,
  type PolicyNormalizer,
  type PolicyRuntime,
  type RetrievalPreset,
  type RetrievalSample,
  type RetrievalTrainer,
  type RetrievalTrainerOptions,
  retrievalPresets,
} from '@onemall/learning';
import { startFromContent } from '@onemall/trainer/src/stages/start-from-content.ts';
import { type RunStore, tensorFiles, tensorsOf } from '../adapters/run-store.ts';
import { SCENARIOS, type WorldLog } from '../log/world-log.ts';
import type { OneMallForm, WorldRun } from '../samples/prepare-world.ts';
import { type HistoryKinds, passOrder, SampleEncoder } from '../samples/sample-encoder.ts';
import { CODEBOOK_VERSION, type SemanticIds } from '../samples/semantic-ids.ts';
import { addLoss, emptyCurve, type LossCurve, stepsOf, writeCurve } from './loss-curve.ts';
import { addFigures, emptyPass, type PassFigures } from './pass-figures.ts';

/** Of the trainer's default. */
const WARMUP_STEPS = 100;

export interface OneMallRun {
  name: string;
  options: Omit<
    RetrievalTrainerOptions,
    'scenarios' | 'numCodes' | 'normalizer' | 'preset' | 'historyLength'
  > & {
    preset: RetrievalPreset;
    historyLength: number;
  };
  normalizer: PolicyNormalizer;
  reads: HistoryKinds;
  /** Passes over the positives. */
  epochs: number;
  /** Whether tables and heads begin as the codebooks' centroids. */
  contentStart: boolean;
  /** Steps between checkpoints. */
  checkpointEvery: number;
}

/** The run of OneMall that a run's options name. */
export function oneMallRun(
  { preset: named, historyLength, seed, engine, checkpointEvery = 500, epochs = 1 }: WorldRun,
  positives: Int32Array,
  form: OneMallForm = 'onemall',
): OneMallRun {
  const preset = { ...retrievalPresets[named], ...(form === 'onemall-events' && { queries: 0 }) };
  const steps = epochs * Math.ceil(positives.length / preset.batchSize);
  return {
    name: `onemall-${named}${form.slice('onemall'.length)}`,
    options: {
      preset,
      historyLength,
      seed,
      optimizer: steps > WARMUP_STEPS ? { decaySteps: steps } : {},
      ...(engine && { engine }),
    },
    normalizer: 'popular',
    reads: form === 'onemall-clicks' ? 'clicks' : 'all',
    contentStart: true,
    epochs,
    checkpointEvery,
  };
}

const SMOOTHED_STEPS = 200;
/** The part of a pass that the final loss is of. */
const END_SHARE = 0.1;

/** How far a training is. */
interface Progress {
  epoch: number;
  /** Positives taken in this epoch. */
  taken: number;
  seconds: number;
  /** Of the steps of this epoch so far; once all are done, of the last. */
  pass: PassFigures;
  /** Of the next-token loss. */
  curve: LossCurve;
  scalars: Record<string, number>;
}

/** Opens a trainer with the weights of the run's checkpoint, if there is one. */
export async function openTrainer(run: OneMallRun, sids: SemanticIds, store: RunStore) {
  const { numCodes } = sids;
  const trainer = await createRetrievalTrainer({
    ...run.options,
    scenarios: SCENARIOS,
    numCodes,
    normalizer: run.normalizer === 'codes' ? 'codes' : 'trie',
    maskedAccuracy: true,
  });
  const name = `${run.name}/checkpoint`;
  const files = await store.files(name);
  const begun = { epoch: 0, taken: 0, seconds: 0 };
  let progress: Progress = { ...begun, pass: emptyPass(), curve: emptyCurve(), scalars: {} };
  if (files) {
    progress = { ...progress, ...store.value<Progress>(name)! };
    await trainer.restore({ tensors: tensorsOf(files), scalars: progress.scalars });
  } else if (run.contentStart) {
    const state = await trainer.state();
    startFromContent(
      state,
      sids.codebooks.map((codebook) => ({ codebook, fromTower: false })),
      { scenarios: SCENARIOS, numCodes },
      run.options.seed,
    );
    await trainer.restore(state);
  }
  return { trainer, progress };
}

/**
 * Trains, or goes on with, the run on these rows, request by request, and returns its policy and how well its last pass foresaw
 * its samples.
 * @param rows of the positives, see `positivesBefore`
 */
export async function trainOneMall(
  log: WorldLog,
  sids: SemanticIds,
  rows: Int32Array,
  run: OneMallRun,
  store: RunStore,
  print: (line: string) => void,
): Promise<{ policy: PolicyRuntime; tower: ItemTowerRuntime; pass: PassFigures }> {
  const loaded = async (files: ReadonlyMap<string, Uint8Array>) => ({
    policy: await loadPolicy(files),
    tower: await loadItemTower(files),
    // a training from before these were kept has none
    pass: store.value<{ pass?: PassFigures }>(`${run.name}/policy`)?.pass ?? emptyPass(),
  });
  const done = await store.files(`${run.name}/policy`);
  if (done) return loaded(done);
  const { trainer, progress } = await openTrainer(run, sids, store);
  try {
    await takeSteps(
      trainer,
      progress,
      new SampleEncoder(log, sids, trainer.historyLength, run.normalizer, run.reads),
      passOrder(log, rows),
      run,
      store,
      print,
    );
    const files = await trainer.exportPolicy({
      policyVersion: run.name,
      codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, CODEBOOK_VERSION])),
      beamWidths: [64, 512],
      normalizer: run.normalizer,
      trieVersion: sids.trieVersion,
    });
    const { seconds, pass } = progress;
    await store.setFiles(`${run.name}/policy`, files, { step: trainer.steps, seconds, pass });
    return await loaded(files);
  } finally {
    await trainer.close();
  }
}

async function takeSteps(
  trainer: RetrievalTrainer,
  progress: Progress,
  encoder: SampleEncoder,
  rows: Int32Array,
  run: OneMallRun,
  store: RunStore,
  print: (line: string) => void,
): Promise<void> {
  const startMs = performance.now() - progress.seconds * 1000;
  const save = async (): Promise<void> => {
    const { tensors, scalars } = await trainer.state();
    progress.seconds = (performance.now() - startMs) / 1000;
    const saved = structuredClone({ ...progress, scalars });
    await store.setFiles(`${run.name}/checkpoint`, tensorFiles(tensors), saved);
    writeCurve(store.folder, { name: run.name, points: stepsOf(progress.curve) });
    print(`checkpoint of ${run.name} at step ${trainer.steps}, ${progress.seconds.toFixed(0)} s`);
  };
  const report = new StepReport(run.name, print);
  for (; progress.epoch < run.epochs; progress.epoch++, progress.taken = 0) {
    let before: ReturnType<RetrievalTrainer['step']> | undefined;
    let isEnd = false;
    const finish = async (): Promise<void> => {
      if (!before) return;
      const done = await before;
      before = undefined;
      report.add(done);
      addLoss(progress.curve, done.loss.ntp);
      addFigures(progress.pass.all, done.byScenario);
      if (isEnd) addFigures(progress.pass.end, done.byScenario);
    };
    if (progress.taken === 0) progress.pass = emptyPass();
    encoder.startPass();
    while (progress.taken < rows.length) {
      const samples: RetrievalSample[] = [];
      while (samples.length < trainer.batchSize && progress.taken < rows.length) {
        const sample = encoder.positive(rows[progress.taken++]!);
        if (sample) samples.push(sample);
      }
      // the next batch is made while the worker computes this one
      await finish();
      before = samples.length > 0 ? trainer.step({ samples }) : undefined;
      before?.catch(() => undefined);
      isEnd = progress.taken > (1 - END_SHARE) * rows.length;
      if (before && (trainer.steps + 1) % run.checkpointEvery === 0) {
        await finish();
        await save();
      }
    }
    await finish();
  }
  await save();
}

class StepReport {
  readonly #name: string;
  readonly #print: (line: string) => void;
  #ntp: number[] = [];
  #outsideTrie = 0;

  constructor(name: string, print: (line: string) => void) {
    this.#name = name;
    this.#print = print;
  }
  add({ step, loss, byScenario, stepMs }: Awaited<ReturnType<RetrievalTrainer['step']>>): void {
    this.#ntp.push(loss.ntp);
    for (const { outsideTrie } of Object.values(byScenario)) this.#outsideTrie += outsideTrie;
    if (step % SMOOTHED_STEPS !== 0) return;
    const mean = this.#ntp.reduce((a, b) => a + b, 0) / this.#ntp.length;
    this.#print(
      `${this.#name} step ${step}: next-token loss ${mean.toFixed(3)} (before the updates), ${stepMs.toFixed(0)} ms; ${this.#outsideTrie} targets outside the trie so far`,
    );
    this.#ntp = [];
  }
}
