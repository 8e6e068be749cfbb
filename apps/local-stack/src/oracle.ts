/** Asks the sample assembler's oracle whether the run's samples are exactly the right ones. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { REPOSITORY_ROOT } from '@onemall/stack';
import type { OracleVerdict } from './report.ts';

const VERIFY = path.join(REPOSITORY_ROOT, 'services', 'sample-assembler', 'oracle', 'verify.ts');
const TIMEOUT_MS = 180_000;

/** A verdict that is not ok when the check itself fails. @param stop ends the check */
export async function askOracle(env: NodeJS.ProcessEnv, stop: AbortSignal): Promise<OracleVerdict> {
  const { end, stdout, stderr } = await runNode([VERIFY], env, stop);
  const lastLine = stdout.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(lastLine) as OracleVerdict;
  } catch {
    return { ok: false, failure: `${end}: ${(stderr || stdout).trim().slice(-500)}` };
  }
}

function runNode(
  args: string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<{ end: string; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: REPOSITORY_ROOT, env, signal, timeout: TIMEOUT_MS });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (bytes: Buffer) => {
      stdout += bytes.toString();
    });
    child.stderr.on('data', (bytes: Buffer) => {
      stderr += bytes.toString();
    });
    child.on('error', (error) => resolve({ end: error.message, stdout, stderr }));
    child.on('close', (code, killedBy) =>
      resolve({
        end: killedBy ? `ended by ${killedBy} (${TIMEOUT_MS / 1000} s are allowed)` : `exit code ${code}`,
        stdout,
        stderr,
      }),
    );
  });
}
