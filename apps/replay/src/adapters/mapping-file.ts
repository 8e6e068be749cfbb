import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '@onemall/service-kit';
import { type Mapping, parseMapping } from '../mapping.ts';

const PRESETS = fileURLToPath(new URL('../../mappings/', import.meta.url));

/**
 * @param nameOrPath a preset's name, or the path of a JSON file
 * @throws ConfigError when there is no such file or it is not a mapping
 */
export function readMapping(nameOrPath: string): Mapping {
  const file = /^[a-z0-9-]+$/.test(nameOrPath) ? path.join(PRESETS, `${nameOrPath}.json`) : nameOrPath;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `No mapping ${nameOrPath}: expected a preset in apps/replay/mappings (trivago, tmall) or the path of a JSON file (--mapping FILE)`,
      { cause },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`${file} is not JSON: ${(cause as Error).message}`, { cause });
  }
  return parseMapping(value, file);
}
