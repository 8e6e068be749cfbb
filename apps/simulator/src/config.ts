import { type CommonConfig, loadConfig, z } from '@onemall/service-kit';

const share = z.coerce.number().min(0).max(1);
const ms = z.coerce.number().int().min(0);
const count = z.coerce.number().int().min(0);

const arm = z.strictObject({
  name: z.string().regex(/^[a-z0-9-]+$/, 'a name is of small letters, digits and -'),
  url: z.url(),
  share,
});

export const simulatorShape = {
  simulatorWorld: z
    .string()
    .min(1)
    .default('demo')
    .describe('a preset (demo, evaluation) or the path of a world file'),
  simulatorRate: z.coerce
    .number()
    .positive()
    .default(250)
    .describe('log events and room changes per second of event time'),
  simulatorMaxEvents: z.coerce
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('stops after so many; 0 never stops'),
  simulatorTimes: z
    .enum(['wall', 'virtual'])
    .default('wall')
    .describe(
      'wall: events happen now; virtual: from simulatorStartTimeMs on, in every run where the last ended',
    ),
  simulatorStartTimeMs: ms.default(1_700_000_000_000).describe('virtual times only'),
  simulatorSpeedUp: z.coerce
    .number()
    .min(0)
    .default(0)
    .describe('virtual times only: seconds of event time per second; 0 is as fast as the broker takes them'),
  simulatorOutOfOrderShare: share.default(0.05),
  simulatorOutOfOrderMs: ms.default(200).describe('how much later than it happened such an event comes'),
  simulatorDuplicateShare: share.default(0.01),
  simulatorDuplicateMs: ms.default(2_000).describe('how much later than the original a copy comes'),
  simulatorLateShare: share.default(0.001),
  simulatorLateMs: ms
    .default(0)
    .describe(
      'late events come between this and twice this after they happened; 0: after every window has closed',
    ),
  simulatorMissingExposureIdShare: share
    .default(0.05)
    .describe('clicks and buys that need last-touch attribution'),
  simulatorArms: z
    .preprocess((v) => (typeof v === 'string' ? JSON.parse(v || '[]') : v), z.array(arm))
    .default([])
    .refine(
      (arms) => arms.reduce((sum, a) => sum + a.share, 0) <= 1,
      'the shares of the arms are more than 1',
    )
    .refine((arms) => new Set(arms.map((a) => a.name)).size === arms.length, 'an arm is named twice')
    .describe(
      'closed loop: policies that answer a share of the requests, [{"name","url","share"}] with the url of POST /retrieve',
    ),
  simulatorArmsFrom: count
    .default(0)
    .describe('closed loop: the logging policy serves so many requests first, from which histories come'),
  simulatorArmsRequests: count
    .default(0)
    .describe('closed loop: requests from there on that arms may answer; 0: all'),
  simulatorArmTimeoutMs: z.coerce
    .number()
    .int()
    .positive()
    .default(2_000)
    .describe('a request that a policy has not answered by then is served by the logging policy'),
  simulatorHistoryLength: z.coerce
    .number()
    .int()
    .min(0)
    .max(1_000)
    .default(50)
    .describe('events of each kind that a policy is told of a user'),
  simulatorBatchMs: z.coerce.number().int().positive().default(100).describe('event time in one send'),
  simulatorBatchRecords: z.coerce.number().int().positive().default(4_000),
};
export type SimulatorConfig = CommonConfig & z.infer<z.ZodObject<typeof simulatorShape>>;

/** @throws ConfigError */
export const simulatorConfig = (env = process.env): SimulatorConfig => loadConfig(simulatorShape, env);

/** Broker append after the last window: added to the windows for events that are to be late. */
const LATE_MARGIN_MS = 2_000;

export const largestWindowMs = (config: CommonConfig): number =>
  Math.max(...Object.values(config.scenarios).flatMap((s) => [s.clickWindowMs, s.buyWindowMs]));

export const disorderOf = (config: SimulatorConfig) => ({
  outOfOrderShare: config.simulatorOutOfOrderShare,
  outOfOrderMs: config.simulatorOutOfOrderMs,
  duplicateShare: config.simulatorDuplicateShare,
  duplicateMs: config.simulatorDuplicateMs,
  lateShare: config.simulatorLateShare,
  lateMs: config.simulatorLateMs || largestWindowMs(config) + config.graceMs + LATE_MARGIN_MS,
  missingExposureIdShare: config.simulatorMissingExposureIdShare,
});
