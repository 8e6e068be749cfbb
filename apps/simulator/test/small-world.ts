/** A tiny world and settings that tests change. */
import { readWorld } from '../src/adapters/world-file.ts';
import { IN_ORDER } from '../src/world/disorder.ts';
import type { WorldOptions, WorldSpec } from '../src/world/spec.ts';
import { World, type WorldRecord, type WorldSettings } from '../src/world/world.ts';

const WINDOWS = { clickWindowMs: 10_000, buyWindowMs: 20_000 };
export const SETTINGS: WorldSettings = {
  seed: 7,
  run: 0,
  runId: 't',
  startMs: 1_700_000_000_000,
  eventsPerS: 100,
  scenarios: { product_card: WINDOWS, short_video: WINDOWS, live_stream: WINDOWS },
  disorder: IN_ORDER,
};

export const smallSpec = (options: Partial<WorldOptions> = {}, more: Partial<WorldSpec> = {}): WorldSpec => {
  const demo = readWorld('demo');
  return {
    ...demo,
    users: 50,
    productCards: 300,
    shortVideos: 200,
    liveRooms: 10,
    topics: 8,
    ...more,
    options: { ...demo.options, ...options },
  };
};

export function smallWorld(
  options: Partial<WorldOptions> = {},
  settings: Partial<WorldSettings> = {},
  spec: Partial<WorldSpec> = {},
): World {
  return new World(smallSpec(options, spec), { ...SETTINGS, ...settings });
}

export function take(world: World, count: number): WorldRecord[] {
  return Array.from({ length: count }, () => world.next());
}

type ValueOf = { [R in WorldRecord as R['topic']]: R['value'] };
/** Only the values of one topic. */
export const ofTopic = <T extends WorldRecord['topic']>(
  records: readonly WorldRecord[],
  topic: T,
): ValueOf[T][] => records.filter((r) => r.topic === topic).map((r) => r.value as ValueOf[T]);
