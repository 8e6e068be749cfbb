/** A child process with a log file, a guardian, a graceful stop and its memory. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, renameSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { Guardian } from './guardian.ts';

/** A service in an error loop may write a log that no string can hold. */
const LOG_TAIL_BYTES = 65_536;

export interface ChildOptions {
  name: string;
  command: string;
  args: string[];
  cwd: string;
  env?: NodeJS.ProcessEnv;
  /** stdout and stderr; an older file becomes `<file>.1`. */
  logFile: string;
  kind: 'service' | 'stack';
  guardian: Guardian;
  /** 0 to 19; higher gives way to others. */
  niceness?: number;
}
export interface ChildExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export class Child {
  readonly name: string;
  readonly logFile: string;
  readonly exited: Promise<ChildExit>;
  exit: ChildExit | null = null;
  #process: ChildProcess;

  constructor(options: ChildOptions) {
    this.name = options.name;
    this.logFile = options.logFile;
    if (existsSync(options.logFile)) renameSync(options.logFile, `${options.logFile}.1`);
    const log = openSync(options.logFile, 'w');
    this.#process = spawn(options.command, options.args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    const { pid } = this.#process;
    this.exited = new Promise((resolve) => {
      const end = (exit: ChildExit): void => {
        if (this.exit) return;
        this.exit = exit;
        if (pid) options.guardian.gone(pid);
        resolve(exit);
      };
      this.#process.on('exit', (code, signal) => end({ code, signal }));
      this.#process.on('error', () => end({ code: 127, signal: null }));
    });
    if (pid) {
      options.guardian.watch(options.kind, pid);
      if (options.niceness) lowerPriority(pid, options.niceness);
    }
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Resident memory, 0 once it has ended or where the system does not tell. */
  rssBytes(): number {
    if (this.exit || !this.pid) return 0;
    try {
      const match = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'));
      return match ? Number(match[1]) * 1024 : 0;
    } catch {
      return 0;
    }
  }

  /** The end of its log. */
  logTail(lines = 15): string {
    const file = openSync(this.logFile, 'r');
    try {
      const { size } = fstatSync(file);
      const end = Buffer.alloc(Math.min(size, LOG_TAIL_BYTES));
      readSync(file, end, 0, end.length, size - end.length);
      return end.toString('utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } finally {
      closeSync(file);
    }
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (!this.exit) this.#process.kill(signal);
  }

  /** SIGTERM, and SIGKILL after `timeoutMs`. */
  async stop(timeoutMs = 15_000): Promise<ChildExit> {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), timeoutMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }
}

function lowerPriority(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness);
  } catch {
    // It may have ended already; priority is a courtesy to other programs, not a need.
  }
}
