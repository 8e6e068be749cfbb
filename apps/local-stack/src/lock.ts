/** One launcher per state folder. */
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { processStart, recordedProcess } from '@onemall/stack';

export class AlreadyRunningError extends Error {
  override name = 'AlreadyRunningError';
}

export const lockFile = (state: string): string => path.join(state, 'run', 'launcher.lock');

/** Id of the launcher that runs in this folder. */
export const runningLauncher = (state: string): number | null => recordedProcess(lockFile(state));

/** @returns a function that gives the lock back @throws AlreadyRunningError */
export function takeLock(state: string): () => void {
  const file = lockFile(state);
  mkdirSync(path.dirname(file), { recursive: true });
  for (;;) {
    try {
      const handle = openSync(file, 'wx');
      writeFileSync(handle, JSON.stringify({ pid: process.pid, start: processStart(process.pid) }));
      closeSync(handle);
      return () => rmSync(file, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = recordedProcess(file);
    if (owner !== null)
      throw new AlreadyRunningError(
        `Another npm start is running in ${state} (process ${owner}). Stop it with Ctrl-C there or kill ${owner}, or start this one with --state ANOTHER_FOLDER.`,
      );
    // Its owner ended without giving it back.
    rmSync(file, { force: true });
  }
}
