/** One service that is started again when it crashes. */
import path from 'node:path';
import { type Guardian, recordProcess, ServiceProcess } from '@onemall/stack';
import { crashStory } from './crash-story.ts';
import type { ProcessPlan } from './plan.ts';
import { decideRestart } from './restart-policy.ts';

export interface SupervisionOptions {
  stateDir: string;
  env: NodeJS.ProcessEnv;
  guardian: Guardian;
  niceness: number;
  nowMs: () => number;
  onState(name: string, state: string): void;
  onCrash(name: string, story: string): void;
  /** The service will not be started again. */
  onGiveUp(name: string, reason: string): void;
}

const TAIL_LINES = 40;
/** Above the 10 s in which a service must drain. */
const STOP_TIMEOUT_MS = 15_000;

export class SupervisedService {
  readonly plan: ProcessPlan;
  readonly logFile: string;
  process: ServiceProcess | null = null;
  #options: SupervisionOptions;
  #crashTimesMs: number[] = [];
  #stopping = false;
  #restart: NodeJS.Timeout | undefined;

  constructor(plan: ProcessPlan, options: SupervisionOptions) {
    this.plan = plan;
    this.#options = options;
    this.logFile = path.join(options.stateDir, 'logs', `${plan.name}.log`);
  }

  start(): void {
    const { name, entry, env } = this.plan;
    const child = new ServiceProcess(entry, {
      name,
      env: { ...this.#options.env, ...env },
      logFile: this.logFile,
      guardian: this.#options.guardian,
      niceness: this.#options.niceness,
    });
    this.process = child;
    this.#options.onState(name, 'starting');
    if (child.pid) recordProcess(path.join(this.#options.stateDir, 'run'), name, child.pid);
    void child.exited.then((exit) => this.#ended(child, exit));
  }

  /** SIGTERM, and its end. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    if (!this.process || this.process.exit) return;
    this.#options.onState(this.plan.name, 'draining');
    const { code, signal } = await this.process.stop(STOP_TIMEOUT_MS);
    this.#options.onState(this.plan.name, 'stopped');
    if (code !== 0)
      this.#options.onCrash(
        this.plan.name,
        `did not stop cleanly (${signal ?? `exit code ${code}`}); log: ${this.logFile}`,
      );
  }

  #ended(child: ServiceProcess, exit: { code: number | null; signal: string | null }): void {
    if (this.#stopping) return;
    const { name } = this.plan;
    this.#crashTimesMs.push(this.#options.nowMs());
    const decision = decideRestart(this.#crashTimesMs, exit);
    const how = exit.signal ?? `exit code ${exit.code}`;
    const story = crashStory(child.logTail(TAIL_LINES));
    const next =
      'giveUp' in decision
        ? `it stays down: ${decision.giveUp}`
        : `it starts again in ${decision.restartAfterMs / 1000} s`;
    this.#options.onState(name, 'giveUp' in decision ? 'failed' : 'crashed');
    this.#options.onCrash(
      name,
      `ended with ${how}; ${next}. Log: ${this.logFile}${story.map((line) => `\n    ${line}`).join('')}`,
    );
    if ('giveUp' in decision) this.#options.onGiveUp(name, decision.giveUp);
    else this.#restart = setTimeout(() => this.start(), decision.restartAfterMs);
  }
}
