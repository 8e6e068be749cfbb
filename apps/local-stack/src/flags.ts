/** The command line of `npm start` and `npm run reset`. */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { REPOSITORY_ROOT } from '@onemall/stack';

/** Where the user's tools look too (`npm run query`, scripts/bootstrap.mjs). */
const DEFAULT_STATE = path.join(REPOSITORY_ROOT, '.data');

export class FlagError extends Error {
  override name = 'FlagError';
}

export interface StartFlags {
  /** simulator, trivago, tmall, kafka:TOPIC, or the path of a file or folder. */
  source: string;
  mapping: string | null;
  follow: boolean;
  /** Folder of the file of trivago or tmall. */
  data: string | null;
  /** Seconds until the run stops by itself; null runs until it is stopped. */
  forSeconds: number | null;
  ratePerS: number | null;
  report: string | null;
  seed: number | null;
  only: string[] | null;
  /** Folder of everything that the pipeline keeps. */
  state: string;
}

export const HELP = `npm start -- [FLAGS]     Runs the whole pipeline on this machine: Kafka, registry, services, traffic, dashboard.
npm run reset            Removes what it keeps (.data), so that the next start begins anew.

  --source SOURCE        simulator (default), trivago, tmall, a file or folder of your own logs, or kafka:TOPIC
  --data FOLDER          where the file of trivago or tmall lies
  --mapping FILE         which columns of your own logs are user, item, time, ... (see apps/replay/README.md)
  --follow               keep reading a kafka:TOPIC that grows
  --rate EVENTS_PER_S    traffic; the default leaves two cores room to breathe
  --for SECONDS          stop by itself; exit code 0 only if every stage worked, nothing was lost and every bar holds
  --report FILE.json     counts, rates, latencies, losses, memory and bars of the run
  --seed N               seed of everything random
  --only SERVICE,...     start only these services, with the source and the dashboard
  --state DIR            folder for logs, models and databases (default .data)
  --help                 this text

Ctrl-C stops everything in order; the next start goes on from there.`;

/**
 * @param cwd the user's folder: relative paths begin there
 * @throws FlagError saying what was expected and what came
 */
export function parseStartFlags(argv: readonly string[], cwd = process.cwd()): StartFlags | 'help' {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...argv],
      options: {
        source: { type: 'string' },
        mapping: { type: 'string' },
        follow: { type: 'boolean' },
        data: { type: 'string' },
        for: { type: 'string' },
        rate: { type: 'string' },
        report: { type: 'string' },
        seed: { type: 'string' },
        only: { type: 'string' },
        state: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (cause) {
    throw new FlagError(`${(cause as Error).message.split('\n')[0]} See npm start -- --help`, { cause });
  }
  if (values.help) return 'help';
  const at = (file: string | null): string | null => (file === null ? null : path.resolve(cwd, file));
  const text = (name: string): string | null => (values[name] as string | undefined) ?? null;
  const number = (name: string, isValid: (n: number) => boolean, expected: string): number | null => {
    const given = text(name);
    if (given === null) return null;
    const n = Number(given);
    if (given.trim() === '' || !isValid(n)) throw new FlagError(`--${name} takes ${expected}, got ${given}`);
    return n;
  };
  const source = text('source') ?? 'simulator';
  const mapping = text('mapping');
  if (source === 'kafka:' || source === '')
    throw new FlagError('--source kafka:TOPIC needs the name of the topic, got none');
  if (mapping === null && needsMapping(source))
    throw new FlagError(
      `--source ${source} needs --mapping FILE, which says what its columns are (apps/replay/README.md shows how to write one)`,
    );
  if (LOG_SOURCES.includes(source) && values.data === undefined)
    throw new FlagError(`--source ${source} needs --data FOLDER, the folder that holds its file`);
  if (source === 'simulator')
    for (const name of ['mapping', 'data', 'follow'])
      if (values[name] !== undefined)
        throw new FlagError(`--${name} belongs to a replayed source, and --source is simulator`);
  if (values.follow && !source.startsWith('kafka:'))
    throw new FlagError(`--follow belongs to --source kafka:TOPIC, got --source ${source}`);
  const only = text('only');
  return {
    source: isOwnFile(source) ? path.resolve(cwd, source) : source,
    mapping: mapping !== null && PRESET_NAME.test(mapping) ? mapping : at(mapping),
    follow: values.follow === true,
    data: at(text('data')),
    forSeconds: number('for', (n) => n > 0, 'a number of seconds above 0'),
    ratePerS: number('rate', (n) => n > 0, 'a number of events per second above 0'),
    report: at(text('report')),
    seed: number('seed', (n) => Number.isInteger(n) && n >= 0, 'a whole number from 0 on'),
    only:
      only === null
        ? null
        : only
            .split(',')
            .map((name) => name.trim())
            .filter(Boolean),
    state: at(text('state')) ?? DEFAULT_STATE,
  };
}

/** Public logs whose mappings are ready; apps/replay/src/sources.json names their files. */
export const LOG_SOURCES = ['trivago', 'tmall'];
const READY_SOURCES = ['simulator', ...LOG_SOURCES];
const needsMapping = (source: string): boolean => !READY_SOURCES.includes(source);
export const isOwnFile = (source: string): boolean => needsMapping(source) && !source.startsWith('kafka:');
/** A mapping in apps/replay/mappings rather than a file of the user's. */
export const PRESET_NAME = /^[a-z0-9-]+$/;
