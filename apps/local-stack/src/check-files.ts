/** Looks for the files that the flags name, before anything is started for them. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { REPOSITORY_ROOT } from '@onemall/stack';
import { FlagError, isOwnFile, LOG_SOURCES, PRESET_NAME, type StartFlags } from './flags.ts';

const REPLAY = path.join(REPOSITORY_ROOT, 'apps', 'replay');

/** @throws FlagError naming the flag and the path that is not there */
export function checkFiles({ source, data, mapping }: Pick<StartFlags, 'source' | 'data' | 'mapping'>): void {
  if (isOwnFile(source) && !existsSync(source))
    throw new FlagError(
      `--source takes simulator, ${LOG_SOURCES.join(', ')}, kafka:TOPIC, or a file or folder: there is none at ${source}`,
    );
  if (data !== null && !existsSync(data))
    throw new FlagError(`--data names a folder that is not there: ${data}`);
  if (data !== null && LOG_SOURCES.includes(source)) {
    const { file } = readySources()[source]!;
    // The replay looks in these two places.
    if (!existsSync(path.join(data, file)) && !existsSync(path.join(data, source, file)))
      throw new FlagError(`--data must name the folder that holds ${file}: it is not in ${data}`);
  }
  if (mapping === null) return;
  if (!PRESET_NAME.test(mapping)) {
    if (!existsSync(mapping)) throw new FlagError(`--mapping names a file that is not there: ${mapping}`);
  } else if (!existsSync(path.join(REPLAY, 'mappings', `${mapping}.json`)))
    throw new FlagError(
      `--mapping ${mapping} is no ready mapping (${LOG_SOURCES.join(', ')}); a file of your own is named with its ending or folder, as in ./${mapping}.json`,
    );
}

const readySources = (): Record<string, { file: string }> =>
  JSON.parse(readFileSync(path.join(REPLAY, 'src', 'sources.json'), 'utf8'));
