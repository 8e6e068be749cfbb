import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { StageStatus } from '@onemall/service-kit';
import { Guardian, ServiceProcess } from '@onemall/stack';

/** One guardian for all services of this test process. */
let guardian: Guardian | undefined;
let logs: string | undefined;
let started = 0;

export interface SpawnedService {
  readonly url: string;
  readonly pid: number;
  readonly logFile: string;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** The JSON of /status. @throws Error when the service does not answer */
  status(): Promise<StageStatus>;
  /** Waits for /ready. */
  ready(timeoutMs?: number): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL, as a crash. */
  kill(): Promise<void>;
  /** What it wrote to stdout and stderr so far, the last lines. */
  logTail(lines?: number): string;
}

/**
 * Starts `node services/<name>/src/main.ts` (or apps/..., when the name is a path) with these variables added to the
 * environment, and waits until its health endpoints listen. It ends with the test process at the latest.
 */
export async function spawnService(
  name: string,
  env: Record<string, string>,
  options: { args?: string[]; timeoutMs?: number } = {},
): Promise<SpawnedService> {
  guardian ??= new Guardian();
  logs ??= mkdtempSync(path.join(tmpdir(), 'onemall-test-logs-'));
  guardian.removeFolder(logs);
  mkdirSync(logs, { recursive: true });
  const entry = name.includes('/') ? name : `services/${name}/src/main.ts`;
  const label = name.includes('/') ? name.split('/')[1]! : name;
  const child = new ServiceProcess(entry, {
    name: label,
    env: { ...process.env, ...env },
    logFile: path.join(logs, `${label}-${++started}.log`),
    guardian,
    ...(options.args ? { args: options.args } : {}),
  });
  const url = await child.listening(options.timeoutMs ?? 60_000).catch(async (error) => {
    await child.stop(1000);
    throw error;
  });
  return {
    url,
    pid: child.pid!,
    logFile: child.logFile,
    exited: child.exited,
    async status() {
      const status = await child.status<StageStatus>();
      if (!status)
        throw new Error(`${label} does not answer /status; its log ends with:\n${child.logTail()}`);
      return status;
    },
    ready: (timeoutMs) => child.ready(timeoutMs),
    stop: async () => (await child.stop()).code,
    async kill() {
      child.kill('SIGKILL');
      await child.exited;
    },
    logTail: (lines) => child.logTail(lines),
  };
}
