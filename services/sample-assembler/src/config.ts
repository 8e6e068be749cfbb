import { tmpdir, totalmem } from 'node:os';
import { loadConfig, z } from '@onemall/service-kit';

const milliseconds = (value: number) => z.coerce.number().int().min(0).default(value);
/** Of the machine, or of the container where that has less. */
const memoryBytes = (): number =>
  Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
const listOf = <const T extends readonly [string, ...string[]]>(names: T, value: T[number][]) =>
  z
    .preprocess(
      (v) => (typeof v === 'string' ? v.split(',').filter((name) => name !== '') : v),
      z.array(z.enum(names)),
    )
    .default(value);

export const LOSSES = ['missing-offsets', 'missing-commits', 'changed-partitions'] as const;
export type Loss = (typeof LOSSES)[number];

const shape = {
  outOfOrdernessMs: milliseconds(500).describe('how far an event may come behind the newest of its input'),
  maxDelayMs: milliseconds(1_000).describe(
    'silence of all inputs after which the watermark moves by elapsed time',
  ),
  inputFreshnessMs: milliseconds(1_000).describe('how long an input that was seen at its end counts as such'),
  idleTimeoutMs: milliseconds(0).describe(
    'an input at its end holds the watermark for so long after its last event',
  ),
  emit: listOf(['positive', 'final'], ['positive', 'final'])
    .refine(
      (kinds) => kinds.includes('final'),
      'must contain final: an exposure always closes with one record',
    )
    .describe(
      'final: one record when the exposure closes; positive: the first click and buy leave at once, too',
    ),
  historyLength: z.coerce
    .number()
    .int()
    .min(0)
    .max(1_000)
    .default(50)
    .describe('H: events of each kind in a history'),
  commitIntervalMs: milliseconds(100).describe(
    'time between two transactions of a partition that is behind; up to date it commits twice as often',
  ),
  maxBufferedRecords: z.coerce
    .number()
    .int()
    .min(100)
    .default(2_000)
    .describe('fetched and not yet joined, for each partition of a topic; more pauses its reading'),
  maxStateMb: z.coerce
    .number()
    .int()
    .min(16)
    .default(() => Math.floor(memoryBytes() / 2 / (1 << 20)))
    .describe(
      'MiB of the state of all partitions of this instance; above it they read slowly; half of the memory',
    ),
  historyCacheMb: z.coerce
    .number()
    .positive()
    .default(32)
    .describe('MiB of user histories of one partition in memory; the others lie on disk'),
  historyFolder: z
    .string()
    .min(1)
    .default(tmpdir())
    .describe('local folder for user histories that memory has no room for'),
  snapshotMs: milliseconds(300_000).describe('time between two snapshots of a partition; 0 writes none'),
  snapshotsKept: z.coerce.number().int().min(1).max(100).default(2).describe('of each partition'),
  sessionTimeoutMs: milliseconds(10_000).describe('a silent instance loses its partitions after so long'),
  acceptLoss: listOf(LOSSES, []).describe(
    'start although: needed offsets are gone, samples exist and no offsets are committed, the partition count changed',
  ),
};

export const sampleAssemblerConfig = (env?: Record<string, string | undefined>) => loadConfig(shape, env);
export type SampleAssemblerConfig = ReturnType<typeof sampleAssemblerConfig>;
