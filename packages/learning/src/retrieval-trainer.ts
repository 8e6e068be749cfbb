import { type SidLayout, sidLayout } from '@onemall/features';
import { startConfiguredEngine } from './engine/choose-engine.ts';
import type { TrainingEngine } from './engine/training-engine.ts';
import { exportPolicy } from './export-policy.ts';
import { ItemFrequency } from './item-frequency.ts';
import {
  evaluationPass,
  itemVectors,
  type RetrievalSizes,
  type RlSizes,
  retrievalPass,
} from './models/onemall.ts';
import { evaluationFeeds, itemFeeds, readLengthOf, retrievalFeeds } from './models/onemall-feeds.ts';
import { type RetrievalPreset, retrievalPresets } from './models/presets.ts';
import { localCodes, stepResult } from './retrieval-step-result.ts';
import {
  BatchError,
  type CreateRetrievalTrainer,
  type RetrievalBatch,
  type RetrievalExport,
  type RetrievalSample,
  type RetrievalStepOptions,
  type RetrievalStepResult,
  type RetrievalTrainer,
  type RetrievalTrainerOptions,
  type RlOptions,
  StateError,
  type TrainerState,
} from './trainer-ports.ts';
import { learningRateAt, type ResolvedOptimizer, resolveOptimizer } from './training-options.ts';

/** Weight of L_RL in the total loss (paper, end of section 3.3). */
const RL_WEIGHT = 0.5;
const DEFAULT_RL_FRACTION = 0.02;
/** Without reward groups, histories of any length. */
const WHOLE_PASS = 'plain';
const FREQUENCY_BUCKETS = 1 << 16;
const FREQUENCY = { lastStep: 'frequency.lastStep', gap: 'frequency.gap' };

/** Starts a trainer of the retrieval model on the engine that the options choose; see `RetrievalTrainer`. */
export const createRetrievalTrainer: CreateRetrievalTrainer = async (options) => {
  const preset = typeof options.preset === 'string' ? retrievalPresets[options.preset] : options.preset;
  if (!preset)
    throw new Error(
      `Unknown preset ${options.preset}; there are ${Object.keys(retrievalPresets).join(', ')}`,
    );
  const sizes: RetrievalSizes = {
    preset,
    layout: sidLayout(options.scenarios, options.numCodes),
    batchSize: options.batchSize ?? preset.batchSize,
    historyLength: options.historyLength ?? preset.historyLength,
    ...(options.normalizer && { normalizer: options.normalizer }),
    ...(options.maskedAccuracy && { maskedAccuracy: true }),
  };
  const optimizer = resolveOptimizer(options.optimizer ?? {}, preset.learningRate);
  const engine = await startConfiguredEngine(
    {
      name: WHOLE_PASS,
      pass: (ops) => retrievalPass(ops, sizes),
      seed: options.seed,
      adamw: optimizer.adamw,
      rate: (name) => (name.startsWith('item.') ? optimizer.itemTowerRate : 1),
    },
    options.engine,
  );
  return new EngineRetrievalTrainer(engine, sizes, optimizer, options);
};

class EngineRetrievalTrainer implements RetrievalTrainer {
  readonly batchSize: number;
  readonly historyLength: number;
  readonly #engine: TrainingEngine;
  readonly #sizes: RetrievalSizes;
  readonly #rl: { sizes: RlSizes; fraction: number } | undefined;
  readonly #optimizer: ResolvedOptimizer;
  readonly #frequency = new ItemFrequency(FREQUENCY_BUCKETS);
  readonly #added = new Map<string, Promise<void>>();
  #queue: Promise<unknown> = Promise.resolve();
  #steps = 0;

  constructor(
    engine: TrainingEngine,
    sizes: RetrievalSizes,
    optimizer: ResolvedOptimizer,
    options: RetrievalTrainerOptions,
  ) {
    this.#engine = engine;
    this.#sizes = sizes;
    this.#optimizer = optimizer;
    this.#rl = options.rl && resolveRl(options.rl);
    this.batchSize = sizes.batchSize;
    this.historyLength = sizes.historyLength;
  }

  get steps(): number {
    return this.#steps;
  }

  step(batch: RetrievalBatch, options: RetrievalStepOptions = {}): Promise<RetrievalStepResult> {
    return this.#inOrder(() => this.#takeStep(batch, options.rlWeight ?? RL_WEIGHT));
  }

  async #takeStep({ samples, groups = [] }: RetrievalBatch, rlWeight: number): Promise<RetrievalStepResult> {
    const requests = [...samples, ...groups].map(({ request }) => request);
    const readLength = readLengthOf(requests, this.historyLength);
    const sizes = { ...(groups.length > 0 ? this.#withRl() : this.#sizes), readLength };
    const learningRate = learningRateAt(this.#steps, this.#optimizer);
    const keys = samples.map((s) => `${s.target.scenario}\0${s.itemId}`);
    const { logQ, undo } = this.#frequency.observe(keys, this.#steps);
    try {
      const rlNormalizer = (this.#rl?.fraction ?? 1) * this.batchSize;
      const feeds = retrievalFeeds(samples, groups, sizes, { logQ, rlScale: rlWeight, rlNormalizer });
      const outcome = await this.#engine.step(await this.#passFor(sizes), feeds, learningRate);
      this.#steps++;
      return stepResult(outcome, {
        ...{ samples, groups, sizes, rlNormalizer, learningRate },
        step: this.#steps,
      });
    } catch (error) {
      undo();
      throw error;
    }
  }

  evaluate(
    samples: readonly RetrievalSample[],
  ): Promise<{ tokenLogProbs: Float32Array; predictions: Int32Array }> {
    return this.#inOrder(async () => {
      await this.#add('evaluate', () =>
        this.#engine.addForward('evaluate', (ops) => evaluationPass(ops, this.#sizes)),
      );
      const tokenLogProbs = new Float32Array(samples.length * 3);
      const predictions = new Int32Array(samples.length * 3);
      for (const [at, chunk] of chunksOf(samples, this.batchSize)) {
        const result = await this.#engine.forward('evaluate', evaluationFeeds(chunk, this.#sizes));
        predictions.set(localCodes(result, chunk, this.#sizes.layout), at * 3);
        for (let i = 0; i < chunk.length; i++)
          for (let level = 0; level < 3; level++)
            tokenLogProbs[(at + i) * 3 + level] = result[`logProb${level + 1}`]![i]!;
      }
      return { tokenLogProbs, predictions };
    });
  }

  embedItems: RetrievalTrainer['embedItems'] = (items) =>
    this.#inOrder(async () => {
      const { batchSize, layout, preset } = this.#sizes;
      await this.#add('items', () =>
        this.#engine.addForward('items', (ops) => ({ vectors: itemVectors(ops, this.#sizes, batchSize) })),
      );
      const { dim } = preset;
      const vectors = new Float32Array(items.length * dim);
      for (const [at, chunk] of chunksOf(items, batchSize)) {
        const result = await this.#engine.forward('items', itemFeeds(chunk, batchSize, layout));
        vectors.set(result.vectors!.subarray(0, chunk.length * dim) as Float32Array, at * dim);
      }
      return { dim, vectors };
    });

  state(): Promise<TrainerState> {
    return this.#inOrder(async () => {
      const { tensors, step } = await this.#engine.state();
      tensors.set(FREQUENCY.lastStep, this.#frequency.lastStep.slice());
      tensors.set(FREQUENCY.gap, this.#frequency.gap.slice());
      return { tensors, scalars: { step, ...shapeScalars(this.#sizes) } };
    });
  }

  restore({ tensors, scalars }: TrainerState): Promise<void> {
    return this.#inOrder(async () => {
      checkScalars(scalars, shapeScalars(this.#sizes));
      const lastStep = tensors.get(FREQUENCY.lastStep);
      const gap = tensors.get(FREQUENCY.gap);
      if (lastStep?.length !== FREQUENCY_BUCKETS || gap?.length !== FREQUENCY_BUCKETS)
        throw new StateError('The saved state lacks the item frequencies or has another number of buckets');
      await this.#engine.restore(tensors, scalars.step!);
      this.#frequency.lastStep.set(lastStep);
      this.#frequency.gap.set(gap);
      this.#steps = scalars.step!;
    });
  }

  exportPolicy(options: RetrievalExport): Promise<Map<string, Uint8Array>> {
    return this.#inOrder(async () => {
      const { tensors, step } = await this.#engine.state();
      return exportPolicy(tensors, step, this.#sizes, options);
    });
  }

  close(): Promise<void> {
    return this.#inOrder(() => this.#engine.close());
  }

  #withRl(): RetrievalSizes & { rl: RlSizes } {
    if (!this.#rl) throw new BatchError('This trainer was created without `rl` and takes no reward groups');
    return { ...this.#sizes, rl: this.#rl.sizes };
  }

  /** @returns the name of the pass for batches of these sizes */
  async #passFor(sizes: RetrievalSizes & { readLength: number }): Promise<string> {
    const isWhole = sizes.readLength === this.historyLength;
    if (isWhole && !sizes.rl) return WHOLE_PASS;
    const name = `${sizes.rl ? 'rl' : 'plain'}-${sizes.readLength}`;
    await this.#add(name, () => this.#engine.addPass(name, (ops) => retrievalPass(ops, sizes)));
    return name;
  }

  /** Graphs that not every trainer needs are compiled when they are first asked for. */
  #add(name: string, add: () => Promise<void>): Promise<void> {
    let adding = this.#added.get(name);
    if (!adding) {
      adding = add();
      this.#added.set(name, adding);
    }
    return adding;
  }

  #inOrder<R>(work: () => Promise<R>): Promise<R> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

function resolveRl(rl: RlOptions): { sizes: RlSizes; fraction: number } {
  const { form, maxGroups = 2, fraction = DEFAULT_RL_FRACTION } = rl;
  const perGroup = rl.candidatesPerGroup ?? (form === 'grpo' ? 16 : 5);
  if (!(Number.isInteger(maxGroups) && maxGroups >= 1 && Number.isInteger(perGroup) && perGroup >= 2))
    throw new Error(
      `rl needs at least 1 group of at least 2 candidates, got ${maxGroups} groups of ${perGroup}`,
    );
  if (!(fraction > 0)) throw new Error(`rl.fraction must be above 0, got ${fraction}`);
  const { epsilon = 0.2, epsilonHigh = 0.28, dpoLambda = 0.2 } = rl;
  return { sizes: { form, groups: maxGroups, perGroup, epsilon, epsilonHigh, dpoLambda }, fraction };
}

/** What must agree for a state to fit: order of the scenarios and their code counts. */
function shapeScalars({
  layout,
  preset,
}: {
  layout: SidLayout;
  preset: RetrievalPreset;
}): Record<string, number> {
  const entries = layout.scenarios.flatMap((scenario, i) => [
    [`scenario.${scenario}`, i] as const,
    ...[0, 1, 2].map((l) => [`numCodes.${scenario}.${l + 1}`, layout.numCodes[scenario]![l]!] as const),
  ]);
  return { dim: preset.dim, layers: preset.layers, ...Object.fromEntries(entries) };
}

function checkScalars(saved: Record<string, number>, expected: Record<string, number>): void {
  if (!(Number.isInteger(saved.step) && saved.step! >= 0))
    throw new StateError(`The saved state has no valid step: ${saved.step}`);
  for (const [name, value] of Object.entries(expected))
    if (saved[name] !== value)
      throw new StateError(`The saved state has ${name} = ${saved[name]}, this trainer ${value}`);
}

function chunksOf<T>(list: readonly T[], size: number): (readonly [number, readonly T[]])[] {
  return Array.from(
    { length: Math.ceil(list.length / size) },
    (_, i) => [i * size, list.slice(i * size, (i + 1) * size)] as const,
  );
}
