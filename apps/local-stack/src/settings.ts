/** The settings that all processes of one run share: the demo profile with this run's addresses and folders. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { REPOSITORY_ROOT, type StackAddresses } from '@onemall/stack';
import { PRESET_NAME, type StartFlags } from './flags.ts';

/** Mappings of the ready sources: data that the replay owns. */
const MAPPINGS = path.join(REPOSITORY_ROOT, 'apps', 'replay', 'mappings');

export type Settings = Record<string, unknown>;

export interface RetentionSettings {
  largestWindowMs: number;
  graceMs: number;
  longestOutageMs: number;
}

/** @throws Error if the file is not readable JSON */
export function readProfile(file: string): Settings {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Settings;
  } catch (cause) {
    throw new Error(`${file} is not a readable JSON file of settings: ${(cause as Error).message}`, {
      cause,
    });
  }
}

export interface RunFacts {
  flags: StartFlags;
  addresses: StackAddresses;
  ports: PagePorts;
  state: string;
}
/** Where a user's own requests and browser go. */
export interface PagePorts {
  retrieverPort: number;
  dashboardPort: number;
}

/** A flat object of config keys; written to run/config.json, which ONEMALL_CONFIG then names. */
export function runSettings(profile: Settings, { flags, addresses, ports, state }: RunFacts): Settings {
  return {
    ...profile,
    ...scenarioSettings(profile, flags),
    kafkaBrokers: addresses.brokers,
    registryUrl: addresses.registryUrl,
    ...(addresses.redisUrl ? { redisUrl: addresses.redisUrl } : {}),
    ...ports,
    dataDir: state,
    artifactsUri: path.join(state, 'artifacts'),
    clickhousePath: path.join(state, 'clickhouse'),
    servicesFile: path.join(state, 'run', 'services.json'),
    ...(flags.seed === null ? {} : { seed: flags.seed }),
    ...sourceSettings(flags),
  };
}

/**
 * A replayed log fills one scenario. The others would wait for items that never come, and the trainer for their
 * codebooks; so they are left out.
 */
function scenarioSettings(profile: Settings, { source, mapping }: StartFlags): Settings {
  if (source === 'simulator') return {};
  const name = mapping ?? source;
  const file = PRESET_NAME.test(name) ? path.join(MAPPINGS, `${name}.json`) : name;
  const { scenario } = readProfile(file);
  const scenarios = profile.scenarios as Record<string, unknown>;
  if (typeof scenario !== 'string' || !(scenario in scenarios))
    throw new Error(
      `${file} names scenario ${JSON.stringify(scenario)}: expected one of ${Object.keys(scenarios).join(', ')}`,
    );
  return { scenarios: { [scenario]: scenarios[scenario] } };
}

function sourceSettings(flags: StartFlags): Settings {
  if (flags.source === 'simulator') return flags.ratePerS === null ? {} : { simulatorRate: flags.ratePerS };
  return {
    replaySource: flags.source,
    ...(flags.data === null ? {} : { replayData: flags.data }),
    ...(flags.mapping === null ? {} : { replayMapping: flags.mapping }),
    ...(flags.ratePerS === null ? {} : { replayRate: flags.ratePerS }),
    ...(flags.follow ? { replayFollow: true } : {}),
  };
}

/** What the topic table needs to know of the windows. */
export function retentionOf(settings: Settings): RetentionSettings {
  const scenarios = Object.values(settings.scenarios as Record<string, Record<string, number>>);
  return {
    largestWindowMs: Math.max(...scenarios.flatMap((s) => [s.clickWindowMs ?? 0, s.buyWindowMs ?? 0])),
    graceMs: Number(settings.graceMs),
    longestOutageMs: Number(settings.longestOutageMs),
  };
}
