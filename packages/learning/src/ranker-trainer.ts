import { FEATURE_VERSION, hashFeature, NUM_DENSE, NUM_IDS } from '@onemall/features';
import { startConfiguredEngine } from './engine/choose-engine.ts';
import type { Arrays } from './engine/ort-sessions.ts';
import { compilePublished } from './engine/program.ts';
import type { TrainingEngine } from './engine/training-engine.ts';
import type { Prediction } from './fuse-reward.ts';
import { type RankerPreset, rankerPresets } from './models/presets.ts';
import { rankerPass, rankerScores } from './models/ranker.ts';
import { RANKER_FORMAT, type RankerManifest } from './policy-ports.ts';
import { PredictionWindow, type RequestOrder } from './prediction-window.ts';
import {
  BatchError,
  type CreateRankerTrainer,
  type RankerExport,
  type RankerSample,
  type RankerStepResult,
  type RankerTrainer,
  StateError,
  type TrainerState,
} from './trainer-ports.ts';
import { learningRateAt, type ResolvedOptimizer, resolveOptimizer } from './training-options.ts';

/** Rows of the published ranker's static batches: of a small rollout, and of a part of a large one. */
export const RANKER_ROWS = 64;
export const RANKER_WIDE_ROWS = 256;
const WINDOW = 20_000;
/** Tensors of a saved state that hold the latest predictions, by scenario. */
const WINDOW_PREFIX = 'predictions.';

/** Starts a trainer of the ranker on the engine that the options choose; see `RankerTrainer`. */
export const createRankerTrainer: CreateRankerTrainer = async (options) => {
  const preset = typeof options.preset === 'string' ? rankerPresets[options.preset] : options.preset;
  if (!preset)
    throw new Error(`Unknown preset ${options.preset}; there are ${Object.keys(rankerPresets).join(', ')}`);
  const batchSize = options.batchSize ?? preset.batchSize;
  const optimizer = resolveOptimizer(options.optimizer ?? {}, preset.learningRate);
  const engine = await startConfiguredEngine(
    {
      name: 'train',
      pass: (ops) => rankerPass(ops, preset, batchSize),
      seed: options.seed,
      adamw: optimizer.adamw,
      rate: () => 1,
    },
    options.engine,
  );
  return new EngineRankerTrainer(engine, preset, options.scenarios, batchSize, optimizer);
};

class EngineRankerTrainer implements RankerTrainer {
  readonly batchSize: number;
  readonly #engine: TrainingEngine;
  readonly #preset: RankerPreset;
  readonly #scenarios: readonly string[];
  readonly #optimizer: ResolvedOptimizer;
  readonly #window = new PredictionWindow(WINDOW);
  #queue: Promise<unknown> = Promise.resolve();
  #steps = 0;

  constructor(
    engine: TrainingEngine,
    preset: RankerPreset,
    scenarios: readonly string[],
    batchSize: number,
    optimizer: ResolvedOptimizer,
  ) {
    this.#engine = engine;
    this.#preset = preset;
    this.#scenarios = scenarios;
    this.batchSize = batchSize;
    this.#optimizer = optimizer;
  }

  get steps(): number {
    return this.#steps;
  }

  step(samples: readonly RankerSample[]): Promise<RankerStepResult> {
    return this.#inOrder(async () => {
      const feeds = rankerFeeds(samples, this.batchSize, this.#scenarios);
      const learningRate = learningRateAt(this.#steps, this.#optimizer);
      const { metrics, gradNorm, stepMs } = await this.#engine.step('train', feeds, learningRate);
      this.#steps++;
      const column = (name: string) => (metrics[name] as Float32Array).slice(0, samples.length);
      const result: RankerStepResult = {
        step: this.#steps,
        loss: {
          total: metrics.loss![0]!,
          click: metrics.clickLoss![0]!,
          buy: metrics.buyLoss![0]!,
          value: metrics.valueLoss![0]!,
        },
        pCtr: column('pCtr'),
        pCtcvr: column('pCtcvr'),
        buyValueCents: column('buyValueCents'),
        gradNorm,
        learningRate,
        stepMs,
      };
      samples.forEach(({ scenario, requestId, clicked, bought, buyValueCents }, i) => {
        this.#window.add(scenario, {
          click: result.pCtr[i]!,
          buy: result.pCtcvr[i]!,
          buyValueCents: result.buyValueCents[i]!,
          clicked,
          bought,
          paidCents: bought ? buyValueCents : 0,
          request: requestId === undefined ? null : hashFeature('request', requestId) & 0xffffff,
        });
      });
      return result;
    });
  }

  metrics(): Record<string, number> {
    return this.#window.metrics();
  }

  requestOrder(scenario: string, rewardOf: (prediction: Prediction) => number): RequestOrder | null {
    return this.#window.requestOrder(scenario, rewardOf);
  }

  state(): Promise<TrainerState> {
    return this.#inOrder(async () => {
      const { tensors, step } = await this.#engine.state();
      for (const [scenario, rows] of this.#window.saved()) tensors.set(WINDOW_PREFIX + scenario, rows);
      return { tensors, scalars: { step, featureVersion: FEATURE_VERSION } };
    });
  }

  restore({ tensors, scalars }: TrainerState): Promise<void> {
    return this.#inOrder(async () => {
      const { step, featureVersion } = scalars;
      if (featureVersion !== FEATURE_VERSION)
        throw new StateError(
          `The saved ranker reads features of version ${featureVersion}, this code makes version ${FEATURE_VERSION}`,
        );
      if (!(Number.isInteger(step) && step! >= 0))
        throw new StateError(`The saved state has no valid step: ${step}`);
      await this.#engine.restore(tensors, step!);
      this.#window.restore(
        new Map(
          [...tensors]
            .filter(([name]) => name.startsWith(WINDOW_PREFIX))
            .map(([name, rows]) => [name.slice(WINDOW_PREFIX.length), rows]),
        ),
      );
      this.#steps = step!;
    });
  }

  exportRanker({ rankerVersion, egpmScale }: RankerExport): Promise<Map<string, Uint8Array>> {
    return this.#inOrder(async () => {
      const { tensors, step } = await this.#engine.state();
      const model = (rows: number): Uint8Array =>
        compilePublished(tensors, (ops) => rankerScores(ops, this.#preset, rows));
      const manifest: RankerManifest = {
        model: 'RANKER',
        format: RANKER_FORMAT,
        rankerVersion,
        step,
        scenarios: [...this.#scenarios],
        featureVersion: FEATURE_VERSION,
        numDense: NUM_DENSE,
        numIds: NUM_IDS,
        batchRows: RANKER_ROWS,
        wideRows: RANKER_WIDE_ROWS,
        egpmScale: egpmScale ?? this.#window.egpmScale(),
        metrics: this.#window.metrics(),
        files: { ranker: 'ranker.onnx', 'ranker-wide': 'ranker-wide.onnx' },
      };
      return new Map([
        ['ranker.onnx', model(RANKER_ROWS)],
        ['ranker-wide.onnx', model(RANKER_WIDE_ROWS)],
        ['ranker.json', new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`)],
      ]);
    });
  }

  close(): Promise<void> {
    return this.#inOrder(() => this.#engine.close());
  }

  #inOrder<R>(work: () => Promise<R>): Promise<R> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

/** All inputs of `rankerPass`; rows beyond the samples have weight 0. @throws BatchError */
export function rankerFeeds(
  samples: readonly RankerSample[],
  batchSize: number,
  scenarios: readonly string[],
): Arrays {
  if (samples.length === 0 || samples.length > batchSize)
    throw new BatchError(`A step takes 1 to ${batchSize} samples, got ${samples.length}`);
  const dense = new Float32Array(batchSize * NUM_DENSE);
  const ids = new Int32Array(batchSize * NUM_IDS);
  const column = () => new Float32Array(batchSize);
  const [clicked, bought, value, weight, boughtWeight] = [
    column(),
    column(),
    column(),
    column(),
    column(),
  ] as const;
  let total = 0;
  let boughtTotal = 0;
  samples.forEach((sample, i) => {
    checkSample(sample, scenarios);
    dense.set(sample.dense, i * NUM_DENSE);
    ids.set(sample.ids, i * NUM_IDS);
    clicked[i] = sample.clicked ? 1 : 0;
    bought[i] = sample.bought ? 1 : 0;
    weight[i] = sample.weight ?? 1;
    total += weight[i]!;
    if (!sample.bought) return;
    value[i] = Math.log1p(sample.buyValueCents);
    boughtWeight[i] = weight[i]!;
    boughtTotal += weight[i]!;
  });
  if (total === 0) throw new BatchError('All samples of the batch have weight 0');
  for (let i = 0; i < samples.length; i++) {
    weight[i]! /= total;
    if (boughtTotal > 0) boughtWeight[i]! /= boughtTotal;
  }
  return { dense, ids, clicked, bought, value, weight, boughtWeight };
}

function checkSample(sample: RankerSample, scenarios: readonly string[]): void {
  const { scenario, dense, ids, weight = 1, bought, buyValueCents } = sample;
  if (!scenarios.includes(scenario))
    throw new BatchError(`Unknown scenario ${scenario}; this ranker knows ${scenarios.join(', ')}`);
  if (dense.length !== NUM_DENSE || ids.length !== NUM_IDS)
    throw new BatchError(
      `A sample has ${NUM_DENSE} dense features and ${NUM_IDS} ids, got ${dense.length} and ${ids.length}`,
    );
  if (!(Number.isFinite(weight) && weight >= 0))
    throw new BatchError(`A sample weight must be a finite number of at least 0, got ${weight}`);
  if (bought && !(Number.isFinite(buyValueCents) && buyValueCents >= 0))
    throw new BatchError(`The value of a buy must be a finite number of at least 0, got ${buyValueCents}`);
}
