import { existsSync } from 'node:fs';
import path from 'node:path';
import { type CommonConfig, ConfigError, loadConfig, z } from '@onemall/service-kit';
import sources from './sources.json' with { type: 'json' };

export const replayShape = {
  replaySource: z
    .string()
    .min(1)
    .describe(
      'trivago or tmall with replayData; a CSV or Parquet file; a folder of them (read in order of their names); kafka:TOPIC',
    ),
  replayData: z.string().min(1).optional().describe('the folder of a ready source'),
  replayMapping: z
    .string()
    .min(1)
    .optional()
    .describe('a preset (trivago, tmall) or the path of a mapping file; ready sources have theirs'),
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
  replayItemsAhead: z.coerce
    .number()
    .int()
    .positive()
    .default(10_000)
    .describe(
      'items are published at least so many events before their first use, in pieces of as many events',
    ),
  replaySortRows: z.coerce
    .number()
    .int()
    .positive()
    .default(200_000)
    .describe('rows sorted in memory at once; more go through files in dataDir'),
};
export type ReplayConfig = CommonConfig & z.infer<z.ZodObject<typeof replayShape>>;

/**
 * Ready sources by name: the file in the folder that replayData names, and its mapping. sources.json also serves
 * launchers, which start this app as a process.
 */
export const READY_SOURCES: Readonly<Record<string, { file: string; mapping: string; scenario: string }>> =
  sources;

/** The configuration with a ready source put in its place. @throws ConfigError */
export function replayConfig(env = process.env): ReplayConfig & { replayMapping: string } {
  const config = loadConfig(replayShape, env);
  const { replaySource, replayFollow, replayData, replayMapping } = config;
  if (replayFollow && !replaySource.startsWith('kafka:'))
    throw new ConfigError(
      `replayFollow needs replaySource kafka:TOPIC, got ${replaySource}: files have an end`,
    );
  const ready = Object.hasOwn(READY_SOURCES, replaySource) ? READY_SOURCES[replaySource] : undefined;
  if (!ready) {
    if (replayMapping === undefined)
      throw new ConfigError(
        `replaySource ${replaySource} needs replayMapping (--mapping FILE): apps/replay/README.md shows how to write one`,
      );
    return { ...config, replayMapping };
  }
  if (replayData === undefined)
    throw new ConfigError(
      `replaySource ${replaySource} needs replayData (--data DIR): the folder that holds ${ready.file}`,
    );
  const file = [path.join(replayData, ready.file), path.join(replayData, replaySource, ready.file)].find(
    (f) => existsSync(f),
  );
  if (file === undefined)
    throw new ConfigError(
      `There is no ${ready.file} in ${replayData}: replayData (--data DIR) must name the folder that holds it`,
    );
  return { ...config, replaySource: file, replayMapping: replayMapping ?? ready.mapping };
}
