/** The services of a closed loop as child processes: an end that nobody asked for ends the loop. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { type Guardian, ServiceProcess, waitFor } from '@onemall/stack';

const PATIENCE_MS = 300_000;
const POLL_MS = 500;
const ENTRIES: Readonly<Record<string, string>> = { simulator: 'apps/simulator/src/main.ts' };

export class LoopProcesses {
  readonly #logs: string;
  readonly #guardian: Guardian;
  #running: ServiceProcess[] = [];
  #started = 0;

  constructor(logs: string, guardian: Guardian) {
    mkdirSync(logs, { recursive: true });
    this.#logs = logs;
    this.#guardian = guardian;
  }

  /** @param name a folder of services/, or simulator. Resolves when it is ready */
  async start(name: string, env: Record<string, string>): Promise<ServiceProcess> {
    const child = new ServiceProcess(ENTRIES[name] ?? `services/${name}/src/main.ts`, {
      name,
      env: { ...process.env, ...env },
      logFile: path.join(this.#logs, `${name}-${++this.#started}.log`),
      guardian: this.#guardian,
    });
    this.#running.push(child);
    await child.ready(PATIENCE_MS);
    return child;
  }

  /** @throws Error with the end of its log when one has ended by itself */
  check(): void {
    for (const { exit, name, logFile, logTail } of this.#running)
      if (exit)
        throw new Error(`${name} ended with exit code ${exit.code}; its log is ${logFile}:\n${logTail()}`);
  }

  /** @throws Error after five minutes, or as `check` */
  async until(what: string, condition: () => Promise<boolean>): Promise<void> {
    await waitFor(condition, {
      what,
      timeoutMs: PATIENCE_MS,
      intervalMs: POLL_MS,
      check: () => this.check(),
    });
  }

  async end(child: ServiceProcess): Promise<void> {
    this.#running = this.#running.filter((one) => one !== child);
    await child.stop();
  }

  /** All of them, those started last first. */
  async stop(): Promise<void> {
    for (const child of this.#running.reverse()) await child.stop();
    this.#running = [];
  }
}
