/** The ranker as a learner: click, buy within the window and paid value of every exposure (model.md, RL). */
import type { StreamedSample } from '@onemall/contracts';
import { rankerFeatures } from '@onemall/features';
import {
  createRankerTrainer,
  fuseReward,
  type RankerPresetName,
  type RankerSample,
  type RankerTrainer,
  rankerPresets,
} from '@onemall/learning';
import { ConfigError, type Logger, type StageMeter } from '@onemall/service-kit';
import type { TrainerConfig } from '../config.ts';
import type { Learner, LearnerState, MetricRow, StepOutcome } from '../learner.ts';
import { describeItem } from '../stages/describe-item.ts';
import { rewardsScenario, surelyAbove } from '../stages/order-within-requests.ts';
import { type EgpmState, egpmScales, observeEgpm, winsorize } from '../stages/scale-egpm.ts';
import { rankerLeavesOut } from '../stages/select-sample.ts';
import { engineOptions } from './engine-options.ts';

export async function openRankerLearner(
  config: TrainerConfig,
  scenarios: readonly string[],
  meter: StageMeter,
  log: Logger,
): Promise<Learner<RankerSample[]>> {
  const trainer = await createRankerTrainer({
    preset: presetNamed(config.rankerPreset),
    scenarios,
    seed: config.seed,
    ...(config.rankerBatchSize !== undefined && { batchSize: config.rankerBatchSize }),
    optimizer: {
      warmupSteps: config.warmupSteps,
      maxGradNorm: config.gradClipNorm,
      ...(config.rankerLearningRate !== undefined && { learningRate: config.rankerLearningRate }),
    },
    engine: engineOptions(config, log),
  });
  return new RankerLearner(trainer, config, meter);
}

function presetNamed(name: string): RankerPresetName {
  if (Object.hasOwn(rankerPresets, name)) return name as RankerPresetName;
  throw new ConfigError(
    `rankerPreset is ${JSON.stringify(name)}, expected one of ${Object.keys(rankerPresets).join(', ')}`,
  );
}

class RankerLearner implements Learner<RankerSample[]> {
  readonly kind = 'RANKER';
  readonly model = 'ranker';
  readonly batchSize: number;
  readonly codebookVersions = {};
  readonly #trainer: RankerTrainer;
  readonly #config: TrainerConfig;
  readonly #meter: StageMeter;
  #egpm: EgpmState = {};
  /** Losses of the newest steps. */
  #losses: { total: number; click: number; buy: number; value: number; samples: number }[] = [];

  constructor(trainer: RankerTrainer, config: TrainerConfig, meter: StageMeter) {
    this.#trainer = trainer;
    this.batchSize = trainer.batchSize;
    this.#config = config;
    this.#meter = meter;
  }

  leavesOut(sample: StreamedSample) {
    return rankerLeavesOut(sample, this.#config);
  }

  encode(samples: readonly StreamedSample[]): RankerSample[] {
    return samples.map((sample) => {
      const { exposure, history, clicked, bought, buyValueCents } = sample;
      const { requestId, scenario, requestTimeMs, itemId } = exposure;
      const { features, known } = describeItem(sample);
      if (!known) this.#meter.add('unknown_item_features');
      const { dense, ids } = rankerFeatures({ scenario, requestTimeMs, history }, itemId, features);
      return { scenario, requestId, dense, ids, clicked, bought, buyValueCents };
    });
  }

  async step(samples: RankerSample[]): Promise<StepOutcome> {
    // Values are cut by what earlier steps saw, so a step stays a function of the state before it.
    const cut = samples.map((s) => ({
      ...s,
      buyValueCents: s.bought ? winsorize(s.buyValueCents, this.#egpm[s.scenario]) : 0,
    }));
    const { loss, gradNorm, stepMs, ...predicted } = await this.#trainer.step(cut);
    this.#losses.push({ ...loss, samples: samples.length });
    if (this.#losses.length > this.#config.metricsWindowSteps) this.#losses.shift();
    this.#egpm = observeEgpm(
      this.#egpm,
      samples.map(({ scenario, bought, buyValueCents }, i) => ({
        scenario,
        bought,
        buyValueCents,
        pCtr: predicted.pCtr[i]!,
        pCtcvr: predicted.pCtcvr[i]!,
        buyValueGivenBuyCents: predicted.buyValueCents[i]!,
      })),
      { minExposures: this.#config.egpmMinExposures, minBuys: this.#config.egpmMinBuys },
    );
    return { loss: loss.total, gradNorm, stepMs };
  }

  async save(): Promise<LearnerState> {
    return { trainer: await this.#trainer.state(), extra: this.#egpm };
  }
  async restore({ trainer, extra }: LearnerState): Promise<void> {
    await this.#trainer.restore(trainer);
    this.#egpm = extra as EgpmState;
  }

  publishable(): string | null {
    if (Object.keys(egpmScales(this.#egpm)).length === 0)
      return `no scenario has its EGPM scale yet: ${this.#config.egpmMinExposures} exposures and ${this.#config.egpmMinBuys} buys of one scenario are needed`;
    const { rewarding, left } = this.#scenarios();
    const isWeak = Object.keys(rewarding).length === 0;
    this.#meter.set(
      'ranker_too_weak',
      Number(isWeak),
      '1 while the ranker orders no scenario as rankerMinRankCorrelation asks',
    );
    return isWeak
      ? `its reward does not order what a request shows: ${left.join(', ')}, asked is rankerMinRankCorrelation ${this.#config.rankerMinRankCorrelation}; rewards go on with the ranker in use, if there is one`
      : null;
  }
  /** Scenarios that the ranker may not reward yet have no S, so that the reward-scorer skips their groups. */
  exportFiles(rankerVersion: string): Promise<Map<string, Uint8Array>> {
    return this.#trainer.exportRanker({ rankerVersion, egpmScale: this.#scenarios().rewarding });
  }

  /** S of the scenarios that the ranker rewards, and why it does not reward the others that have one. */
  #scenarios(): { rewarding: Record<string, number>; left: string[] } {
    const rewarding: Record<string, number> = {};
    const left: string[] = [];
    for (const [scenario, scale] of Object.entries(egpmScales(this.#egpm))) {
      const order = this.#orderOf(scenario, scale);
      if (rewardsScenario(order, this.#config.rankerMinRankCorrelation)) rewarding[scenario] = scale;
      else
        left.push(
          order
            ? `${scenario} ${order.mean.toFixed(3)} +- ${order.error.toFixed(3)} (${order.requests} requests)`
            : `${scenario} unknown`,
        );
    }
    return { rewarding, left };
  }
  #orderOf(scenario: string, scale: number) {
    const { rewardAlpha: alpha, rewardBeta: beta, rewardGamma: gamma } = this.#config;
    return this.#trainer.requestOrder(
      scenario,
      (prediction) => fuseReward(prediction, { alpha, beta, gamma }, scale).reward,
    );
  }

  figures(): MetricRow[] {
    const samples = this.#losses.reduce((sum, l) => sum + l.samples, 0);
    if (samples === 0) return [];
    const mean = (part: 'total' | 'click' | 'buy' | 'value') =>
      this.#losses.reduce((sum, l) => sum + l[part] * l.samples, 0) / samples;
    const byScenario = new Map<string, Record<string, number>>();
    for (const [name, value] of Object.entries(this.#trainer.metrics())) {
      const dot = name.lastIndexOf('.');
      const scenario = name.slice(0, dot);
      byScenario.set(scenario, { ...byScenario.get(scenario), [snakeCase(name.slice(dot + 1))]: value });
    }
    for (const [scenario, scale] of Object.entries(egpmScales(this.#egpm))) {
      const order = this.#orderOf(scenario, scale);
      const low = surelyAbove(order);
      byScenario.set(scenario, {
        ...byScenario.get(scenario),
        egpm_scale_cents: scale,
        ...(order && { rank_correlation: order.mean, rank_correlation_requests: order.requests }),
        ...(low !== null && { rank_correlation_low: low }),
      });
    }
    const all = {
      loss: mean('total'),
      loss_click: mean('click'),
      loss_buy: mean('buy'),
      loss_value: mean('value'),
      window_samples: samples,
      ...weighted(
        [...byScenario.values()],
        [
          ...['auc_click', 'auc_buy', 'calibration_click', 'calibration_buy'],
          ...['calibration_value', 'calibration_egpm'],
        ],
      ),
    };
    return [
      { scenario: '', values: all },
      ...[...byScenario].map(([scenario, values]) => ({ scenario, values })),
    ];
  }

  async close(): Promise<void> {
    await this.#trainer.close();
  }
}

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** Mean over scenarios by their samples; a figure that no scenario has is left out. */
function weighted(rows: readonly Record<string, number>[], names: readonly string[]): Record<string, number> {
  const means: Record<string, number> = {};
  for (const name of names) {
    const having = rows.filter((row) => row[name] !== undefined);
    const samples = having.reduce((sum, row) => sum + row.samples!, 0);
    if (samples > 0) means[name] = having.reduce((sum, row) => sum + row[name]! * row.samples!, 0) / samples;
  }
  return means;
}
