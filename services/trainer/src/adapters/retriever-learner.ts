/** The OneMall retrieval model as a learner: next-token and contrastive loss on first positives, reward groups beside. */
import type { RewardBatch, StreamedSample } from '@onemall/contracts';
import {
  createRetrievalTrainer,
  type RetrievalPresetName,
  type RetrievalSample,
  type RetrievalStepResult,
  type RetrievalTrainer,
  type RewardGroup,
  retrievalPresets,
} from '@onemall/learning';
import { ConfigError, type Logger, type StageMeter } from '@onemall/service-kit';
import type { TrainerConfig } from '../config.ts';
import type { Codebooks, Learner, LearnerState, MetricRow, StepOutcome } from '../learner.ts';
import { drawCandidates, type GroupRules } from '../stages/choose-groups.ts';
import { GroupWindow, type StepFigures, StepWindow } from '../stages/measure-steps.ts';
import { type RetrieverRules, retrieverLeavesOut } from '../stages/select-sample.ts';
import { engineOptions } from './engine-options.ts';
import { SampleEncoder } from './sample-encoder.ts';
import type { SidTables } from './sid-tables.ts';

export async function openRetrieverLearner(
  config: TrainerConfig,
  scenarios: readonly string[],
  codebooks: Codebooks,
  tables: SidTables,
  meter: StageMeter,
  log: Logger,
): Promise<Learner<RetrievalSample[]> & { readonly historyLength: number }> {
  const trainer = await createTrainer(config, scenarios, codebooks, log);
  const { historyLength } = trainer;
  const encoder = new SampleEncoder({ scenarios, codebooks, tables, historyLength, meter });
  return new RetrieverLearner(trainer, config, codebooks, encoder, tables, meter);
}

/** A new model on these codebooks, as the configuration has it. */
export function createTrainer(
  config: TrainerConfig,
  scenarios: readonly string[],
  { numCodes }: Codebooks,
  log: Logger,
): Promise<RetrievalTrainer> {
  return createRetrievalTrainer({
    preset: presetNamed(config.trainerPreset),
    scenarios,
    numCodes,
    seed: config.seed,
    ...(config.batchSize !== undefined && { batchSize: config.batchSize }),
    ...(config.historyLength !== undefined && { historyLength: config.historyLength }),
    maskedAccuracy: true,
    ...(config.rlMode !== 'off' && {
      // so many groups come with each batch, in the mean: the weight of L_RL is the same whatever their share
      rl: { form: config.rlMode, maxGroups: config.rlMaxGroups, fraction: config.rolloutShare },
    }),
    optimizer: {
      warmupSteps: config.warmupSteps,
      maxGradNorm: config.gradClipNorm,
      itemTowerRate: config.itemTowerRate,
      ...(config.learningRate !== undefined && { learningRate: config.learningRate }),
    },
    engine: engineOptions(config, log),
  });
}

function presetNamed(name: string): RetrievalPresetName {
  if (Object.hasOwn(retrievalPresets, name)) return name as RetrievalPresetName;
  throw new ConfigError(
    `trainerPreset is ${JSON.stringify(name)}, expected one of ${Object.keys(retrievalPresets).join(', ')}`,
  );
}

class RetrieverLearner implements Learner<RetrievalSample[]> {
  readonly kind = 'RETRIEVER';
  readonly model = 'retriever';
  readonly batchSize: number;
  readonly historyLength: number;
  readonly codebookVersions: Readonly<Record<string, number>>;
  readonly #trainer: RetrievalTrainer;
  readonly #config: TrainerConfig;
  readonly #rules: RetrieverRules & GroupRules;
  readonly #encoder: SampleEncoder;
  readonly #tables: SidTables;
  readonly #meter: StageMeter;
  readonly #window: StepWindow;
  readonly #groups: GroupWindow;
  #last: RetrievalStepResult | null = null;

  constructor(
    trainer: RetrievalTrainer,
    config: TrainerConfig,
    codebooks: Codebooks,
    encoder: SampleEncoder,
    tables: SidTables,
    meter: StageMeter,
  ) {
    this.#trainer = trainer;
    this.batchSize = trainer.batchSize;
    this.historyLength = trainer.historyLength;
    this.codebookVersions = codebooks.codebookVersions;
    this.#config = config;
    this.#rules = {
      ...codebooks,
      heldBackFraction: config.heldBackFraction,
      trainShare: config.trainShare,
      seed: config.seed,
      maxLagSteps: config.rlMaxLagSteps,
      form: config.rlMode === 'dpo' ? 'dpo' : 'grpo',
    };
    this.#encoder = encoder;
    this.#tables = tables;
    this.#meter = meter;
    this.#window = new StepWindow(config.metricsWindowSteps);
    this.#groups = new GroupWindow(config.metricsWindowSteps);
    meter.set('rl_groups', 0, 'Reward groups trained since the start of the process');
  }

  leavesOut(sample: StreamedSample) {
    return retrieverLeavesOut(sample, this.#rules);
  }

  encode(samples: readonly StreamedSample[]): RetrievalSample[] | null {
    const encoded = samples.map((sample) => this.#encoder.sample(sample)).filter((s) => s !== null);
    const existing = this.#tables.existing();
    for (const sample of encoded) {
      const [first, second, third] = existing.childrenAlong(sample.target);
      sample.children = [{ codes: first }, { codes: second }, { codes: third }];
    }
    return encoded.length > 0 ? encoded : null;
  }

  async step(
    samples: RetrievalSample[],
    groups: readonly RewardBatch[],
    rlShare: number,
  ): Promise<StepOutcome> {
    const result = await this.#trainer.step(
      {
        samples,
        // `dropsGroup` leaves none shorter, but a step that is repeated with another rlMode may
        groups: groups.map((group) => this.#rewardGroup(group)).filter((g) => g.candidates.length > 1),
      },
      { rlWeight: this.#config.rlMode === 'off' ? 0 : this.#config.rlWeight * rlShare },
    );
    this.#last = result;
    this.#window.add(result.byScenario);
    this.#groups.add(result.rl && { loss: result.loss.rl, ...result.rl });
    if (result.rl) this.#meter.add('rl_groups', result.rl.groups);
    const { loss, rl, gradNorm, stepMs } = result;
    const { ntp, contrastive } = loss;
    return { loss: ntp, contrastive, ...(rl && { rl: rl.lossPerGroup }), gradNorm, stepMs };
  }

  #rewardGroup(group: RewardBatch): RewardGroup {
    const drawn = drawCandidates(group, this.#rules, this.#config.seed);
    return {
      request: this.#encoder.request(group),
      candidates: drawn.map((c) => ({
        codes: [c.c1, c.c2, c.c3],
        refLogProb: c.tokenLogProbs.reduce((a, b) => a + b, 0),
        advantage: c.advantage,
      })),
    };
  }

  async save(): Promise<LearnerState> {
    return { trainer: await this.#trainer.state(), extra: { window: this.#window.saved() } };
  }
  async restore({ trainer, extra }: LearnerState): Promise<void> {
    await this.#trainer.restore(trainer);
    this.#window.restore((extra as { window: StepFigures[] } | null)?.window ?? []);
  }
  publishable(): string | null {
    return null;
  }
  exportFiles(policyVersion: string): Promise<Map<string, Uint8Array>> {
    return this.#trainer.exportPolicy({
      policyVersion,
      codebookVersions: this.codebookVersions,
      beamWidths: this.#config.beamWidths.toSorted((a, b) => a - b),
    });
  }

  figures(): MetricRow[] {
    const rows: MetricRow[] = [];
    for (const scenario of ['', ...this.#window.scenarios()]) {
      const figures = this.#window.figures(scenario === '' ? undefined : scenario);
      if (!figures) continue;
      const { samples, loss, levelLoss, accuracy, maskedAccuracy, maskedSamples } = figures;
      rows.push({
        scenario,
        values: {
          loss,
          loss_level_1: levelLoss[0],
          loss_level_2: levelLoss[1],
          loss_level_3: levelLoss[2],
          sid_accuracy_1: accuracy[0],
          sid_accuracy_2: accuracy[1],
          sid_accuracy_3: accuracy[2],
          ...Object.fromEntries(
            (maskedAccuracy ?? []).map((share, l) => [`sid_accuracy_masked_${l + 1}`, share]),
          ),
          window_samples: samples,
          window_samples_masked: maskedSamples,
          ...(scenario === '' && { ...this.#lastStep(), ...this.#ofGroups() }),
        },
      });
    }
    return rows;
  }

  /** Of the newest step only. */
  #lastStep(): Record<string, number> {
    const last = this.#last;
    if (!last) return {};
    return {
      loss_contrastive: last.loss.contrastive,
      learning_rate: last.learningRate,
      entropy_1: last.entropy[0],
      entropy_2: last.entropy[1],
      entropy_3: last.entropy[2],
      expert_max_over_mean: last.experts.maxOverMean,
      expert_overflow: last.experts.overflow,
    };
  }

  /** Over the steps in the window that had groups: the newest one seldom has. */
  #ofGroups(): Record<string, number> {
    const groups = this.#groups.figures();
    if (!groups) return {};
    return {
      rl_loss: groups.loss,
      rl_kl: groups.kl,
      rl_clip_share: groups.clipShare,
      rl_mean_ratio: groups.meanRatio,
      rl_advantage_mean: groups.advantages.mean,
      rl_advantage_std: groups.advantages.std,
      rl_advantage_max_abs: groups.advantages.maxAbs,
      rl_max_abs_log_ratio: groups.maxAbsLogRatio,
      rl_window_candidates: groups.candidates,
    };
  }

  async close(): Promise<void> {
    await this.#trainer.close();
  }
}
