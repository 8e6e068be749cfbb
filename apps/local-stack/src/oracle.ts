/** Asks the sample assembler's oracle whether the run's samples are exactly the right ones. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { REPOSITORY_ROOT } from '@onemall/stack';
import type { OracleVerdict } from './report.ts';

const VERIFY = path.join(REPOSITORY_ROOT, 'services', 'sample-assembler', 'oracle', 'verify.ts');
const TIMEOUT_MS = 180_000;

/** A verdict that is not ok when the check itself fails. */
export async function askOracle(env: NodeJS.ProcessEnv): Promise<OracleVerdict | null> {
  if (!existsSync(VERIFY)) return null;
  const { code, stdout, stderr } = await runNode([VERIFY], env);
  const lastLine = stdout.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(lastLine) as OracleVerdict;
  } catch {
    return { ok: false, failure: `exit code ${code}: ${(stderr || stdout).trim().slice(-500)}` };
  }
}

function runNode(
  args: string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: REPOSITORY_ROOT, env, timeout: TIMEOUT_MS });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (bytes: Buffer) => {
      stdout += bytes.toString();
    });
    child.stderr.on('data', (bytes: Buffer) => {
      stderr += bytes.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
