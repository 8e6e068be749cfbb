import { type CommonConfig, ConfigError, loadConfig, z } from '@onemall/service-kit';
import sources from './sources.json' with { type: 'json' };

export const replayShape = {
  replaySource: z
    .string()
    .min(1)
    .describe('a CSV or Parquet file, a folder of them (read in order of their names), or kafka:TOPIC'),
  replayMapping: z.string().min(1).describe('a preset (trivago, tmall) or the path of a mapping file'),
  replayFollow: z
    .preprocess(
      (v) => (v === 'true' || v === '1' ? true : v === 'false' || v === '0' ? false : v),
      z.boolean(),
    )
    .default(false)
    .describe('kafka:TOPIC only: wait for more at the end of the topic'),
  replayRate: z.coerce
    .number()
    .min(0)
    .default(250)
    .describe('events per second; ignored when replaySpeedUp is above 0'),
  replaySpeedUp: z.coerce
    .number()
    .min(0)
    .default(0)
    .describe('seconds of the log per second; 0 follows replayRate'),
  replayTimes: z
    .enum(['shift', 'keep'])
    .default('shift')
    .describe(
      'shift: the first event is now and distances shrink as the log is sped up; keep: as in the log',
    ),
  replayLoop: z
    .preprocess(
      (v) => (v === 'true' || v === '1' ? true : v === 'false' || v === '0' ? false : v),
      z.boolean(),
    )
    .default(false)
    .describe('begin again at the end, with new ids'),
  replaySortRows: z.coerce
    .number()
    .int()
    .positive()
    .default(200_000)
    .describe('rows sorted in memory at once; more go through files in dataDir'),
};
export type ReplayConfig = CommonConfig & z.infer<z.ZodObject<typeof replayShape>>;

/** @throws ConfigError */
export function replayConfig(env = process.env): ReplayConfig {
  const config = loadConfig(replayShape, env);
  if (config.replayFollow && !config.replaySource.startsWith('kafka:'))
    throw new ConfigError(
      `replayFollow needs replaySource kafka:TOPIC, got ${config.replaySource}: files have an end`,
    );
  return config;
}

/**
 * Ready sources by name: the file below a data folder and its mapping. `apps/replay/src/sources.json` holds them for
 * launchers that start this app as a process.
 */
export const READY_SOURCES: Readonly<Record<string, { file: string; mapping: string; scenario: string }>> =
  sources;
