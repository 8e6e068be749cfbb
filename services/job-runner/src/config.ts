import { existsSync } from 'node:fs';
import { loadConfig, z } from '@onemall/service-kit';

const ms = z.coerce.number().int().min(0);
const count = (least: number) => z.coerce.number().int().min(least);
const share = z.coerce.number().min(0).max(1);

export const jobShape = {
  redisUrl: z.url({ protocol: /^rediss?$/ }).default('redis://127.0.0.1:6379'),
  retrieverUrl: z.url().default('http://127.0.0.1:8600').describe('where POST /retrieve answers'),
  retrieverPort: count(0).optional().describe('of a retriever on this machine; retrieverUrl without it'),
  boardHost: z.string().default('127.0.0.1'),
  boardPort: count(0).default(8091).describe('of the web page with the queue'),

  jobAttempts: count(1).default(3),
  jobBackoffMs: ms.default(2_000).describe('pause before the second attempt; doubles with each'),
  keepJobs: count(1).default(100).describe('finished jobs of each outcome that stay listed'),
  collectPairsEveryMs: ms.default(0).describe('0: only by hand'),
  trainCodebooksEveryMs: ms.default(0).describe('0: only by hand'),
  evaluateHitRateEveryMs: ms.default(600_000).describe('0: only by hand'),

  textEmbeddingDim: count(8).default(64).describe('as the live-sid-updater has it'),
  minItemsForCodebook: count(1).default(200),
  textEncoderFolder: z
    .string()
    .default('')
    .describe('folder of an ONNX text encoder for items without an embedding; hashed n-grams where empty'),
  picturesFolder: z.string().default('').describe('as the live-sid-updater has it'),
  lastLevel: z.enum(['kmeans', 'fsq']).default('fsq'),
  maxTrainingVectors: count(1).default(50_000),
  liveTower: z
    .preprocess((v) => (typeof v === 'string' ? v === 'true' : v), z.boolean())
    .default(true)
    .describe('codebooks of live rooms are made from the item tower of the policy in use, once there is one'),
  projectorPairs: z
    .string()
    .regex(/^(pairs\/.+@[0-9a-f]{64})?$/, 'expected uri@sha256, as collect-pairs prints it')
    .default('')
    .describe(
      'pairs on which the projector of the next codebook of product cards is trained; empty: that of the version before, or none',
    ),
  projectorSteps: count(1).default(600).describe('of 256 pairs'),
  projectorDim: count(1).default(64).describe('length of what the levels quantize'),
  maxExcessConflict: share.default(0.5).describe('conflict beyond what equal vectors explain'),
  minCodeUsage: share.default(0.5).describe('share of first-level codes in use'),
  maxMovedShare: share
    .default(0.5)
    .describe('items whose first-level code may be another than in the version before'),
  trainingStateEveryMs: ms.default(10_000).describe('how often a training keeps where it is'),
  maxRelativeError: share.default(0.9).describe('what a codebook may leave of the vectors'),

  retokenizeTimeoutMs: ms
    .default(600_000)
    .describe('after this long an attempt to tokenize a catalogue again is given up'),
  retireAfterMs: ms
    .default(86_400_000)
    .describe(
      'codebook versions are retired this long after the policy in use went on to newer ones, and not before the largest window, grace and longest outage are over',
    ),
  trainingThreads: count(1).default(2).describe('of one training'),

  pairsMaxSamples: count(1).default(2_000_000).describe('newest samples that pairs are made of'),
  pairsMaxUsers: count(2).default(200_000).describe('beyond this a part of the users is left out'),
  pairsMaxPerUser: count(2).default(200).describe('newest clicks and views of a user'),
  pairsMaxPerItem: count(1).default(40),
  pairsMaxNeighbourItems: count(2).default(200_000),
  pairsNeighbours: count(1).default(10).describe('nearest products of each in the space of the item tower'),
  pairsMinSimilarity: z.coerce.number().min(-1).max(1).default(0.5),
  pairsExcludedCategories: z
    .preprocess((v) => (typeof v === 'string' ? v.split(',').map((c) => c.trim()) : v), z.array(z.string()))
    .optional()
    .describe('categories of videos that make no pairs; those of the paper by default'),

  heldBackFraction: share.default(0.01).describe('as the trainer has it'),
  evaluateMaxSamples: count(1).default(200_000).describe('newest samples that are read'),
  evaluateMaxRequests: count(1)
    .default(200)
    .describe('newest held-back requests with a click that are asked'),
  evaluateMinRequests: count(1)
    .default(1)
    .describe('fewer than this are no measurement: the job writes none and says so'),
  evaluateTimeoutMs: ms.default(30_000).describe('of one /retrieve'),
};

/** Where `npm start` leaves the configuration of the running pipeline. */
const RUNNING_CONFIG = '.data/run/config.json';

export function readConfig() {
  const env = { ...process.env };
  if (!env.ONEMALL_CONFIG && existsSync(RUNNING_CONFIG)) env.ONEMALL_CONFIG = RUNNING_CONFIG;
  const config = loadConfig(jobShape, env);
  if (env.ONEMALL_RETRIEVER_URL || config.retrieverPort === undefined) return config;
  return { ...config, retrieverUrl: `http://127.0.0.1:${config.retrieverPort}` };
}
export type JobConfig = ReturnType<typeof readConfig>;
