import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '@onemall/service-kit';
import { parseWorld, type WorldSpec } from '../world/spec.ts';

const PRESETS = fileURLToPath(new URL('../../worlds/', import.meta.url));

/**
 * @param nameOrPath a preset's name, or the path of a JSON file
 * @throws ConfigError when there is no such file or it is not a world
 */
export function readWorld(nameOrPath: string): WorldSpec {
  const file = /^[a-z0-9-]+$/.test(nameOrPath) ? path.join(PRESETS, `${nameOrPath}.json`) : nameOrPath;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `No world ${nameOrPath}: expected a preset in apps/simulator/worlds (demo, evaluation, evaluation-tenth) or the path of a JSON file`,
      { cause },
    );
  }
  try {
    return parseWorld(JSON.parse(text), file);
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`${file} is not JSON: ${(cause as Error).message}`, { cause });
  }
}
