import type { ScenarioName } from './logging-policy.ts';
import type { WorldSpec } from './spec.ts';

const SCENARIOS: readonly ScenarioName[] = ['product_card', 'short_video', 'live_stream'];

/** The configured scenarios that the world has, with the upper ends of their shares. @throws Error if there is none */
export function scenarioTable(
  spec: WorldSpec,
  scenarios: Readonly<Record<string, { clickWindowMs: number; buyWindowMs: number }>>,
) {
  const there = SCENARIOS.filter(
    (name) =>
      scenarios[name] !== undefined &&
      spec.scenarios[name] > 0 &&
      !(name === 'short_video' && spec.shortVideos === 0) &&
      !(name === 'live_stream' && spec.liveRooms === 0),
  );
  if (there.length === 0)
    throw new Error(
      `World ${spec.name} has none of the configured scenarios ${Object.keys(scenarios).join(', ')}: it knows ${SCENARIOS.join(', ')}`,
    );
  const sum = there.reduce((s, name) => s + spec.scenarios[name], 0);
  let upTo = 0;
  return there.map((name) => {
    upTo += spec.scenarios[name] / sum;
    return { name, upTo, ...scenarios[name]! };
  });
}
