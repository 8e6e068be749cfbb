/** Turns the outputs of a retrieval graph into the figures of `RetrievalStepResult`. */
import type { SidLayout } from '@onemall/features';
import type { Arrays, StepOutcome } from './engine/ort-sessions.ts';
import { MAX_LOG_RATIO } from './layers/losses.ts';
import { countsMasked } from './models/masked-accuracy.ts';
import type { RetrievalSizes, RlSizes } from './models/onemall.ts';
import type { RetrievalSample, RetrievalStepResult, RewardGroup, ScenarioFigures } from './trainer-ports.ts';

type Triple = [number, number, number];
const LEVELS = [0, 1, 2] as const;
const triple = (f: (level: 0 | 1 | 2) => number): Triple => [f(0), f(1), f(2)];

export function stepResult(
  { metrics, gradNorm, stepMs }: StepOutcome,
  done: {
    samples: readonly RetrievalSample[];
    groups: readonly RewardGroup[];
    sizes: RetrievalSizes;
    /** What L_RL was divided by. */
    rlNormalizer: number;
    learningRate: number;
    step: number;
  },
): RetrievalStepResult {
  const { samples, groups, sizes, rlNormalizer, learningRate, step } = done;
  const value = (name: string): number => metrics[name]?.[0] ?? 0;
  const ntpByLevel = triple((l) => value(`ntp${l + 1}`));
  const tokenLogProbs = new Float32Array(samples.length * 3);
  for (const level of LEVELS)
    for (let i = 0; i < samples.length; i++)
      tokenLogProbs[i * 3 + level] = metrics[`logProb${level + 1}`]![i]!;
  return {
    step,
    loss: {
      total: value('loss'),
      ntp: ntpByLevel[0] + ntpByLevel[1] + ntpByLevel[2],
      ntpByLevel,
      contrastive: value('contrastive'),
      rl: value('rl'),
    },
    byScenario: figuresByScenario(samples, tokenLogProbs, metrics, sizes),
    tokenLogProbs,
    contrastAccuracy: mean(metrics.contrastHits!.subarray(0, samples.length)),
    gradNorm,
    learningRate,
    entropy: triple((l) => mean(metrics[`entropy${l + 1}`]!.subarray(0, samples.length))),
    rl: sizes.rl
      ? {
          lossPerGroup: (value('rl') * rlNormalizer) / groups.length,
          ...rewardFigures(groups, sizes.rl, metrics.rlLogProb as Float32Array),
        }
      : null,
    experts: expertFigures(metrics),
    stepMs,
  };
}

/** Argmax rows as codes within each sample's scenario: int32 [samples, 3]. */
export function localCodes(
  metrics: Arrays,
  samples: readonly RetrievalSample[],
  layout: SidLayout,
): Int32Array {
  const codes = new Int32Array(samples.length * 3);
  samples.forEach(({ target }, i) => {
    const offsets = layout.offsets.get(target.scenario)!;
    for (const level of LEVELS) codes[i * 3 + level] = metrics[`predicted${level + 1}`]![i]! - offsets[level];
  });
  return codes;
}

function figuresByScenario(
  samples: readonly RetrievalSample[],
  tokenLogProbs: Float32Array,
  metrics: Arrays,
  { normalizer }: RetrievalSizes,
): Record<string, ScenarioFigures> {
  const figures: Record<string, ScenarioFigures> = {};
  samples.forEach(({ target, children }, i) => {
    figures[target.scenario] ??= {
      samples: 0,
      hits: [0, 0, 0],
      maskedSamples: 0,
      maskedHits: [0, 0, 0],
      outsideTrie: 0,
      ntp: [0, 0, 0],
    };
    const own = figures[target.scenario]!;
    const codes = [target.c1, target.c2, target.c3] as const;
    own.samples++;
    const isMasked = metrics.better1 !== undefined && (normalizer === 'trie' || countsMasked(children));
    if (isMasked) own.maskedSamples++;
    if (children && !LEVELS.every((level) => children[level].codes.includes(codes[level]))) own.outsideTrie++;
    for (const level of LEVELS) {
      if (metrics[`above${level + 1}`]![i] === 0) own.hits[level]++;
      if (isMasked && metrics[`better${level + 1}`]![i] === 0) own.maskedHits[level]++;
      own.ntp[level] -= tokenLogProbs[i * 3 + level]!;
    }
  });
  for (const own of Object.values(figures)) own.ntp = triple((l) => own.ntp[l] / own.samples);
  return figures;
}

function rewardFigures(
  groups: readonly RewardGroup[],
  rl: RlSizes,
  rowLogProbs: Float32Array,
): Omit<NonNullable<RetrievalStepResult['rl']>, 'lossPerGroup'> {
  const rows = groups.flatMap((group, g) =>
    group.candidates.map(({ refLogProb, advantage }, i) => {
      const logProb = rowLogProbs[g * rl.perGroup + i]!;
      const logRatio = logProb - refLogProb;
      const ratio = Math.exp(Math.max(-MAX_LOG_RATIO, Math.min(MAX_LOG_RATIO, logRatio)));
      const clipped =
        rl.form === 'grpo' &&
        ((advantage > 0 && ratio > 1 + rl.epsilonHigh) || (advantage < 0 && ratio < 1 - rl.epsilon));
      return { logProb, logRatio, ratio, clipped, advantage };
    }),
  );
  const advantageMean = mean(rows.map((r) => r.advantage));
  return {
    groups: groups.length,
    candidates: rows.length,
    advantages: {
      mean: advantageMean,
      std: Math.sqrt(mean(rows.map((r) => (r.advantage - advantageMean) ** 2))),
      maxAbs: rows.reduce((max, r) => Math.max(max, Math.abs(r.advantage)), 0),
    },
    meanRatio: mean(rows.map((r) => r.ratio)),
    kl: mean(rows.map((r) => 1 / r.ratio - 1 + Math.log(r.ratio))),
    maxAbsLogRatio: rows.reduce((max, r) => Math.max(max, Math.abs(r.logRatio)), 0),
    clipShare: mean(rows.map((r) => (r.clipped ? 1 : 0))),
    logProbs: Float32Array.from(rows, (r) => r.logProb),
  };
}

function expertFigures(metrics: Arrays): RetrievalStepResult['experts'] {
  const loads: number[][] = [];
  let overflow = 0;
  for (let layer = 0; metrics[`loads${layer}`]; layer++) {
    loads.push(Array.from(metrics[`loads${layer}`]!));
    overflow += metrics[`overflow${layer}`]![0]!;
  }
  const maxOverMean = loads.reduce(
    (most, layer) => Math.max(most, Math.max(...layer) / (mean(layer) || 1)),
    1,
  );
  return { loads, maxOverMean, overflow };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return values.length === 0 ? 0 : sum / values.length;
}
