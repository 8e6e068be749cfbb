/** `--engine NAME` of the commands that train. */
import { type EngineOptions, engineNames } from '@onemall/learning';

export type Engine = EngineOptions & { name: (typeof ENGINES)[number] };

export const ENGINES = [...engineNames, 'auto'] as const;
export const CPU: Engine = { name: 'cpu' };

/** @param print told what trains, unless that is the default */
export function engineOf(text: string, print: (line: string) => void): Engine {
  const name = ENGINES.find((engine) => engine === text);
  if (!name) throw new RangeError(`there is no engine ${text}; there are ${ENGINES.join(', ')}`);
  if (name === 'cpu') return CPU;
  return {
    name,
    onChosen: ({ description, passedOver }) => {
      print(`trains on ${description}`);
      for (const { name, reason } of passedOver) print(`  not on ${name}: ${reason}`);
    },
  };
}
