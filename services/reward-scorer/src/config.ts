import { loadConfig, z } from '@onemall/service-kit';

const weight = z.coerce.number().min(0);

export const scorerShape = {
  rewardAlpha: weight.default(1).describe('weight of pCtr in the reward'),
  rewardBeta: weight.default(30).describe('weight of pCtcvr in the reward'),
  rewardGamma: weight.default(1).describe('weight of pEgpm in the reward'),
  maxAdvantage: z.coerce.number().positive().default(5).describe('advantages are clamped to +- this'),
  maxRolloutAgeMs: z.coerce
    .number()
    .int()
    .min(1)
    .default(600_000)
    .describe('rollouts that waited longer are skipped and counted: their policy has moved on'),
  rankerBatchRows: z.coerce
    .number()
    .int()
    .min(1)
    .default(4096)
    .describe('candidates per call of the ranker; a larger rollout goes in one call'),
};

export const readConfig = (env?: Record<string, string | undefined>) => loadConfig(scorerShape, env);
export type ScorerConfig = ReturnType<typeof readConfig>;
