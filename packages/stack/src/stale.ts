/** Processes that an earlier start left behind, told from strangers with a reused id by their start time. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { waitFor } from './wait.ts';

/** When a process started, in the system's own unit; null if it is gone or a zombie that nobody reaps. */
export function processStart(pid: number): string | null {
  try {
    if (process.platform === 'linux') {
      // The name in parentheses may hold spaces; state and start time follow it (proc(5): fields 3 and 22).
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
      return fields[0] === 'Z' || fields[0] === 'X' ? null : fields[19]!;
    }
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || null;
  } catch {
    return null;
  }
}

export function recordProcess(runDir: string, name: string, pid: number): void {
  writeFileSync(path.join(runDir, `${name}.pid`), JSON.stringify({ pid, start: processStart(pid) }));
}

/** The process of a record made by recordProcess, if it is still that one. */
export function recordedProcess(file: string): number | null {
  try {
    const { pid, start } = JSON.parse(readFileSync(file, 'utf8')) as { pid: number; start: string | null };
    return start !== null && processStart(pid) === start ? pid : null;
  } catch {
    return null;
  }
}

/** Stops what an earlier start left running in this folder. */
export async function endStale(runDir: string, onProgress: (line: string) => void): Promise<void> {
  for (const name of readdirSync(runDir).filter((n) => n.endsWith('.pid'))) {
    const file = path.join(runDir, name);
    const pid = recordedProcess(file);
    if (pid !== null) {
      onProgress(`stopping ${path.basename(name, '.pid')} (pid ${pid}) that an earlier run left behind`);
      process.kill(pid, 'SIGTERM');
      await waitFor(() => recordedProcess(file) === null, {
        timeoutMs: 30_000,
        what: `process ${pid} of an earlier run to end; stop it by hand with kill -9 ${pid}`,
      });
    }
    rmSync(file, { force: true });
  }
}
