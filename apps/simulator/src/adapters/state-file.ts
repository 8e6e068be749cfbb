/** What the simulator remembers between starts: a few lines of JSON that appear whole or not at all. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export interface SimulatorState {
  /** Starts so far. */
  run: number;
  /** World hash, seed and scenarios of the catalogue that items holds; empty before the first. */
  catalogue: string;
  /** Rooms that may be open in the log: the next run ends them. */
  openRooms: string[];
  /** Event time reached, for virtual times; 0 before the first. */
  reachedMs: number;
}

/** @throws Error when the file is there and not readable as a state */
export function readState(file: string): SimulatorState {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { run: 0, catalogue: '', openRooms: [], reachedMs: 0 };
  }
  try {
    const state = JSON.parse(text) as SimulatorState;
    if (!Number.isInteger(state.run) || !Array.isArray(state.openRooms))
      throw new Error('run or openRooms is missing');
    return state;
  } catch (cause) {
    throw new Error(
      `${file} is not a state of the simulator (${(cause as Error).message}): remove it to begin anew`,
      { cause },
    );
  }
}

export function writeState(file: string, state: SimulatorState): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(`${file}.tmp`, JSON.stringify(state));
  renameSync(`${file}.tmp`, file);
}
