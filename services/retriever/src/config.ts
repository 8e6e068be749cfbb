import { loadConfig, rolloutShape, z } from '@onemall/service-kit';

const count = z.coerce.number().int().min(1);
const share = z.coerce.number().min(0).max(1);

export const retrieverShape = {
  retrieverPort: z.coerce
    .number()
    .int()
    .min(0)
    .max(65_535)
    .default(8600)
    .describe('POST /retrieve and /openapi.json, on httpHost; 0 takes a free port'),
  pinnedPolicy: z
    .string()
    .default('')
    .transform((text, context) => {
      if (text === '') return null;
      const [, uri, sha256] = /^([^@]+)@([0-9a-f]{64})$/.exec(text) ?? [];
      if (uri && sha256) return { uri, sha256 };
      context.addIssue(
        `must be URI@SHA256 of a published policy, as its record in policy-versions has them, got ${text}`,
      );
      return z.NEVER;
    })
    .describe(
      'URI@SHA256 of the one policy to serve, for comparing policies; empty: the newest published one',
    ),
  retrieveMaxK: count.default(1000).describe('items that one request may ask for'),
  retrieveMaxBeam: count.default(1000).describe('beam width that one request may ask for'),
  retrieveBeam: count.default(500).describe('beam width where the request names none'),
  retrieveMaxHistory: count.default(1000).describe('events per behaviour that a request may carry'),
  retrieveMaxBodyBytes: count.default(1_048_576),
  retrieveTimeoutMs: count
    .default(5_000)
    .describe(
      'waiting and searching, then 504, or 503 if it never began; and the coming of a request, then 408 within twice the time',
    ),
  retrieveConcurrency: count.default(2).describe('searches at the same time, each on a thread of its own'),
  retrieveQueue: count.default(64).describe('requests that may wait; further ones get 503 and Retry-After'),
  itemOrder: z
    .enum(['popularity', 'freshness', 'share'])
    .default('popularity')
    .describe(
      'order of several items on one SID; share: over all SIDs, by the probability that falls to each item',
    ),
  denseWeight: z.coerce
    .number()
    .min(0)
    .default(0)
    .describe('of the cosine of user and item in the final score, in nats; 0: the beam alone'),
  popularityHalfLifeMs: count.default(24 * 3_600_000),
  popularityReplaySamples: count
    .default(200_000)
    .describe('newest samples, over all partitions, that popularity is counted from at the start'),
  trieRebuildMs: z.coerce
    .number()
    .int()
    .min(0)
    .max(1000)
    .default(250)
    .describe('rooms and items enter and leave the trie within this time'),
  ...rolloutShape,
  rolloutBudgetPerS: z.coerce.number().min(0).default(2).describe('rollouts above it are shed and counted'),
  rolloutCandidates: count.default(768).describe('n: candidates per rollout'),
  rolloutSearch: z
    .enum(['beam', 'sample'])
    .default('beam')
    .describe('beam: the best candidates; sample: drawn without replacement (Gumbel top-k)'),
  maxSampleAgeMs: count
    .default(120_000)
    .describe('requests whose sample waited longer become no rollout: their SIDs have moved on'),
  heldBackFraction: share.default(0.01).describe('share of requests kept for measuring; never a rollout'),
  hitRateBudgetPerS: z.coerce.number().min(0).default(2).describe('held-back requests measured per second'),
  hitRateBeam: count.default(500).describe('beam width of the hit rate'),
  retrievalMetricsMs: count.default(10_000).describe('how often retrieval-metrics are written'),
};

export function readConfig(env?: Record<string, string | undefined>) {
  return loadConfig(retrieverShape, env);
}
export type RetrieverConfig = ReturnType<typeof readConfig>;
