/**
 * How setting TensorFlow up ended, in a file beside its folder. A missing folder alone does not say whether the library cannot be had
 * here, is on its way, or could not be built.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export interface SetupOutcome {
  /** cannot be had: no such wheel, tool or network here; failed: something that should work does not. */
  state: 'running' | 'installed' | 'cannot be had' | 'failed';
  /** Empty where there is nothing to say. */
  reason: string;
  /** Who sets it up. */
  pid: number;
}

const outcomeFile = (folder: string): string => `${folder}.setup.json`;
/** Where the CI lets the setup print. */
export const setupLog = (folder: string): string => `${folder}.setup.log`;

export function writeSetupOutcome(folder: string, state: SetupOutcome['state'], reason = ''): void {
  const file = outcomeFile(folder);
  mkdirSync(path.dirname(file), { recursive: true });
  const growing = `${file}.${process.pid}.tmp`;
  writeFileSync(growing, JSON.stringify({ state, reason, pid: process.pid } satisfies SetupOutcome));
  renameSync(growing, file);
}

/**
 * Why there is no TensorFlow in the folder for a test to run on; null where there is one.
 * @throws Error when setting it up failed
 */
export function whyNoTensorflow(folder: string): string | null {
  const file = outcomeFile(folder);
  const outcome = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as SetupOutcome) : null;
  if (outcome?.state === 'failed')
    throw new Error(
      `Setting TensorFlow up failed: ${outcome.reason}. npm run setup:tensorflow tries again${printed(folder)}`,
    );
  if (outcome?.state === 'cannot be had') return `TensorFlow cannot be had: ${outcome.reason}`;
  // Setting up ends with a move to this place: what stands here is whole.
  if (existsSync(path.join(folder, 'node_modules'))) return null;
  if (outcome?.state !== 'running') return `no TensorFlow in ${folder}: npm run setup:tensorflow gets it`;
  return lives(outcome.pid)
    ? `TensorFlow is still being set up in ${folder}`
    : 'setting TensorFlow up was stopped before its end: npm run setup:tensorflow begins anew';
}

const LAST_LINES = 20;
function printed(folder: string): string {
  const log = setupLog(folder);
  return existsSync(log)
    ? `; ${log} ends with\n${readFileSync(log, 'utf8').trimEnd().split('\n').slice(-LAST_LINES).join('\n')}`
    : '';
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // none of this number, or of another user: not the one that began here
  }
}
