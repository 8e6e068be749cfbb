import { loadConfig, z } from '@onemall/service-kit';

const count = z.coerce.number().int().min(1);
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
  rankerUrl: z
    .union([z.literal(''), z.url({ protocol: /^https?$/ })])
    .default('')
    .describe('a ranker over HTTP in place of the published one (src/adapters/http-ranker.ts)'),
  rankerTimeoutMs: count.default(2_000).describe('of one request to rankerUrl'),
  rankerMaxInFlight: count.default(4).describe('requests to rankerUrl at the same time'),
  rankerHttpRows: count.default(512).describe('candidates in one request to rankerUrl'),
  rankerAttempts: count.default(3).describe('unusable answers before a rollout becomes a dead letter'),
  rankerRefreshMs: count.default(5_000).describe('how often rankerUrl is asked for its version'),
};

export const readConfig = (env?: Record<string, string | undefined>) => loadConfig(scorerShape, env);
export type ScorerConfig = ReturnType<typeof readConfig>;
