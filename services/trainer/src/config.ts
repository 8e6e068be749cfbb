/** Settings of the trainer. One process trains one model; `model` says which. */
import { engineNames } from '@onemall/learning';
import { type CommonConfig, ConfigError, loadConfig, rolloutShape, z } from '@onemall/service-kit';

const count = (least: number) => z.coerce.number().int().min(least);
const rate = z.coerce.number().min(0).max(1);
const weight = z.coerce.number().min(0);
const flag = z.union([z.boolean(), z.enum(['true', 'false']).transform((text) => text === 'true')]);

export const trainerShape = {
  model: z.enum(['retriever', 'ranker']).default('retriever').describe('which model this process trains'),
  trainerPreset: z
    .string()
    .min(1)
    .default('small')
    .describe('size of the retrieval model, a name of retrievalPresets'),
  rankerPreset: z.string().min(1).default('small').describe('size of the ranker, a name of rankerPresets'),
  batchSize: count(1).optional().describe('B of the retriever: samples per step; the preset has a default'),
  rankerBatchSize: count(1).optional().describe('B of the ranker; the preset has a default'),
  historyLength: count(1).optional().describe('H: events per behaviour that the model reads'),
  learningRate: z.coerce.number().positive().optional().describe('of the retriever'),
  rankerLearningRate: z.coerce.number().positive().optional(),
  contentStart: flag
    .default(true)
    .describe("a new retriever's tables and heads begin as the centroids of its codebooks"),
  warmupSteps: count(0).default(100),
  gradClipNorm: z.coerce.number().positive().default(1),
  trainerEngine: z
    .enum([...engineNames, 'auto'])
    .default('cpu')
    .describe(
      'what computes the steps; auto takes the first that works here; cpu is bit-exact from run to run',
    ),
  intraOpNumThreads: count(1).default(1).describe('threads of one operator; 1 is bit-exact from run to run'),
  maxBatchWaitMs: count(0)
    .default(2_000)
    .describe('a batch that began to fill is trained after this long, full or not'),
  trainShare: z.coerce
    .number()
    .positive()
    .max(1)
    .default(1)
    .describe(
      'of the samples that would train, the share that does, by seeded hash: for traffic beyond the capacity',
    ),
  fork: flag
    .default(false)
    .describe(
      'this process waits for newer codebooks, carries the retriever over to them and takes over when it passes the gate',
    ),
  forkTailSamples: count(0)
    .default(50_000)
    .describe('newest records of the log that a fork trains on again, over all partitions'),
  forkQuietMs: count(0)
    .default(30_000)
    .describe('a fork waits until no codebook came for this long: a job trains one scenario after the other'),
  heldBackFraction: rate
    .default(0.01)
    .describe('share of requests kept for evaluation, by hash of requestId'),
  maxBufferedBatches: count(1)
    .default(4)
    .describe('fetched samples per partition, in batches, before reading pauses'),
  checkpointEverySteps: count(1).default(500),
  checkpointEveryMs: count(0).default(60_000).describe('whichever comes first'),
  keepCheckpoints: count(1).default(3),
  publishEverySteps: count(1).default(500),
  publishEveryMs: count(0).default(60_000).describe('whichever comes first'),
  keepPolicies: count(2).default(5),
  itemVectorsPerPolicy: count(0)
    .default(5_000)
    .describe('items besides live rooms whose item-tower vectors are written with each policy, in turn'),
  itemTowerRate: z.coerce
    .number()
    .positive()
    .max(1)
    .default(0.3)
    .describe(
      'learning rate of the item tower as a share of the others: SIDs of live rooms are made from its vectors',
    ),
  gateRequests: count(1)
    .default(300)
    .describe('newest held-back positives that a policy is measured on before it is published'),
  gateMinRequests: count(1)
    .default(100)
    .describe('with fewer of them nothing that replaces a published policy is published'),
  gateMaxRecallFall: rate
    .default(0.05)
    .describe(
      'a policy whose beam recall is so far below the published one stays unpublished; 1 lets all pass',
    ),
  beamWidths: z
    .preprocess(
      (v) => (typeof v === 'string' ? v.split(',').map(Number) : v),
      z.array(z.number().int().min(1)).min(1),
    )
    .default([64])
    .describe('beam widths that get a decode graph in the published policy'),
  lossSpikeFactor: z.coerce
    .number()
    .min(0)
    .default(3)
    .describe(
      'next-token, contrastive or RL loss above this many times its running mean stops training; 0 switches the check off',
    ),
  lossGuardGraceSteps: count(0).default(200),
  rlMode: z.enum(['off', 'dpo', 'grpo']).default('grpo'),
  rlWeight: z.coerce.number().min(0).default(0.5).describe('weight of L_RL in the loss'),
  rlMaxGroups: count(1).default(2).describe('reward groups in one step at most'),
  rlSpreadSteps: count(1).default(8).describe('waiting groups are spread over this many steps'),
  ...rolloutShape,
  rlMaxLagSteps: count(1)
    .default(2_000)
    .describe(
      'a group whose policy is more steps behind is dropped; at least 2 x (referenceSyncSteps + publishEverySteps)',
    ),
  rlRollbackRefusals: count(1)
    .default(2)
    .describe('refused policies in a row before training goes back to the policy in use'),
  rlRampSteps: count(1)
    .default(1_000)
    .describe('steps over which the weight of L_RL rises from 0 after a rollback'),
  gateMaxLegalityFall: rate
    .default(0.05)
    .describe('as gateMaxRecallFall, for the share of an unconstrained beam that exists, once it was 0.2'),
  rlRememberedRequests: count(1)
    .default(20_000)
    .describe('requestIds of used groups kept to drop copies; at least rlMaxGroups x rlMaxLagSteps'),
  metricsEveryMs: count(100).default(3_000),
  metricsWindowSteps: count(1).default(50).describe('steps in the sliding figures'),
  egpmMinExposures: count(2).default(5_000).describe('exposures before the EGPM scale of a scenario is set'),
  egpmMinBuys: count(1).default(20),
  rankerMinRankCorrelation: z.coerce
    .number()
    .min(-1)
    .max(1)
    .default(0)
    .describe(
      'a ranker rewards a scenario once the rank correlation of its reward with what came of the exposures of a request is surely (95 %) not below this; -1 asks nothing',
    ),
  rewardAlpha: weight.default(1).describe('weight of pCtr in the reward, as the reward-scorer has it'),
  rewardBeta: weight.default(30).describe('weight of pCtcvr'),
  rewardGamma: weight.default(1).describe('weight of pEgpm'),
  acceptLostSamples: flag
    .default(false)
    .describe('go on from the earliest retained sample where the needed ones are gone'),
};
export type TrainerConfig = CommonConfig & z.infer<z.ZodObject<typeof trainerShape>>;

/** @throws ConfigError, also where reward groups would be dropped before they can arrive, or their copies train again */
export function trainerConfig(env: Record<string, string | undefined> = process.env): TrainerConfig {
  const config = loadConfig(trainerShape, env);
  if (config.fork && config.model !== 'retriever')
    throw new ConfigError('fork is for the retriever alone: the ranker reads no codebooks');
  if (config.rlMode !== 'off' && config.rolloutShare === 0)
    throw new ConfigError(
      'rolloutShare is 0, so no reward group can come, and L_RL is divided by it: set rlMode to off',
    );
  // So old a reference grows before the publication that replaces it; as much again is for the judging and the way of a group.
  const leastLagSteps = 2 * (config.referenceSyncSteps + config.publishEverySteps);
  if (config.rlMode !== 'off' && config.rlMaxLagSteps < leastLagSteps)
    throw new ConfigError(
      `rlMaxLagSteps is ${config.rlMaxLagSteps}, expected at least 2 x (referenceSyncSteps + publishEverySteps) = ${leastLagSteps}: the reference policy grows to nearly half of that before it is replaced`,
    );
  const usedInLag = config.rlMaxGroups * config.rlMaxLagSteps;
  if (config.rlMode !== 'off' && config.rlRememberedRequests < usedInLag)
    throw new ConfigError(
      `rlRememberedRequests is ${config.rlRememberedRequests}, expected at least rlMaxGroups x rlMaxLagSteps = ${usedInLag}: a copy of a group may train until its policy is too old`,
    );
  return config;
}
