/** How far a replay has come, so that the next start goes on from there. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export interface ReplayState {
  /** Files, mapping and seed that the numbers below belong to. */
  log: string;
  /** Rounds through the log that are complete. */
  rounds: number;
  /** Events of this round that are in the topics. */
  sent: number;
}

/** @throws Error when the file is there and is no state */
export function readState(file: string, log: string): ReplayState {
  const fresh = { log, rounds: 0, sent: 0 };
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return fresh;
    throw error;
  }
  try {
    const state = JSON.parse(text) as ReplayState;
    if (!Number.isInteger(state.sent) || !Number.isInteger(state.rounds))
      throw new Error('sent or rounds is missing');
    return state.log === log ? state : fresh;
  } catch (cause) {
    throw new Error(
      `${file} is not a state of a replay (${(cause as Error).message}): remove it to begin anew`,
      {
        cause,
      },
    );
  }
}

export function writeState(file: string, state: ReplayState): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(`${file}.tmp`, JSON.stringify(state));
  renameSync(`${file}.tmp`, file);
}
