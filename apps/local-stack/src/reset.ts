/** `npm run reset`: removes what the pipeline keeps. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { endStale } from '@onemall/stack';
import { AlreadyRunningError, runningLauncher } from './lock.ts';

/** @throws AlreadyRunningError while a launcher runs there; Error for a folder that is not the pipeline's */
export async function reset(state: string, say: (line: string) => void): Promise<void> {
  if (!existsSync(state) || readdirSync(state).length === 0)
    return say(`Nothing to remove: ${state} is empty.`);
  const owner = runningLauncher(state);
  if (owner !== null)
    throw new AlreadyRunningError(
      `The pipeline runs in ${state} (process ${owner}): stop it first, with Ctrl-C there or kill ${owner}.`,
    );
  const run = path.join(state, 'run');
  if (!existsSync(run))
    throw new Error(
      `${state} does not look like the pipeline's folder (it has no run/ inside): not removed.`,
    );
  await endStale(run, say);
  rmSync(state, { recursive: true, force: true });
  say(`Removed ${state}. Downloads stay in the cache folder; the next start begins anew.`);
}
