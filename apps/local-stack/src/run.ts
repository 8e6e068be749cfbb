/**
 * One run of the pipeline: stack, topics, services, watching, and the way back.
 *
 *   started in this order   Kafka, registry, Redis; topics and schemas; source and the way to the first trained sample; the rest
 *   stopped in this order   source; services in pipeline order; dashboard; registry, Redis, Kafka
 */
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TOPICS } from '@onemall/contracts';
import { connectKafka, type KafkaIo } from '@onemall/kafka-io';
import type { StageStatus } from '@onemall/service-kit';
import {
  areDownloaded,
  cacheDir,
  downloadsIn,
  freePorts,
  Guardian,
  isPortFree,
  type LocalStack,
  REPOSITORY_ROOT,
  startLocalStack,
} from '@onemall/stack';
import type { StartFlags } from './flags.ts';
import { takeLock } from './lock.ts';
import { askOracle } from './oracle.ts';
import { planProcesses } from './plan.ts';
import { buildReport, type OracleVerdict, type RunReport } from './report.ts';
import { RunHistory } from './run-history.ts';
import { type PagePorts, readProfile, retentionOf, runSettings } from './settings.ts';
import { settle } from './settle.ts';
import { SupervisedService } from './supervised-service.ts';
import type { Terminal } from './terminal.ts';

const PROFILE = path.join(REPOSITORY_ROOT, 'config', 'demo.json');
const POLL_MS = 1_000;
/** After the source has stopped, records under way get this long to reach the end of the pipeline. */
const SETTLE_MS = 20_000;
/** The second wave waits no longer than this for the first. */
const FIRST_WAVE_MS = 10_000;
/** Those of the documentation, where they are free. */
const RETRIEVER_PORT = 8600;
const DASHBOARD_PORT = 8080;
const ALL_TOPICS = TOPICS.map((t) => t.name);

export interface RunOptions {
  flags: StartFlags;
  terminal: Terminal;
  /** Aborted by the first Ctrl-C or SIGTERM. */
  stop: AbortSignal;
  /** When the user asked, before anything was installed. */
  askedMs: number;
  /** npm packages were installed for this start. */
  installed: boolean;
  nowMs: () => number;
}

/** @returns the report, and whether the run ended by itself or by the user */
export async function runPipeline(options: RunOptions): Promise<RunReport> {
  const { flags, terminal, nowMs } = options;
  const { state } = flags;
  const giveLockBack = takeLock(state);
  const guardian = new Guardian();
  let stack: LocalStack | undefined;
  try {
    // Files that are replayed for the first time have to be read and prepared before anything else; a topic is followed as it is.
    const isLog = flags.source !== 'simulator' && !flags.source.startsWith('kafka:');
    const unprepared = isLog && !existsSync(path.join(state, 'replay', 'state.json'));
    const wasCold = options.installed || unprepared || !areDownloaded(downloadsIn(cacheDir()));
    terminal.say('Starting Kafka, the schema registry and Redis');
    stack = await withHeartbeat(terminal, nowMs, (onProgress) =>
      startLocalStack({ dataDir: state, guardian, redis: true, niceness: nicenessOf(flags), onProgress }),
    );
    if (!stack.redisUrl)
      terminal.say(
        '  no redis-server here, so the jobs are off and everything else runs (apt-get install redis-server)',
      );
    const ports = {
      retrieverPort: await preferredPort(RETRIEVER_PORT),
      dashboardPort: await preferredPort(DASHBOARD_PORT),
    };
    const run = new Run(options, { state, stack, guardian, ports, wasCold });
    return await run.go();
  } finally {
    await stack?.stop();
    guardian.close();
    giveLockBack();
  }
}

const preferredPort = async (port: number): Promise<number> =>
  (await isPortFree(port)) ? port : (await freePorts(1))[0]!;

/** The user's other programs come first, except in a run that is measured. */
const nicenessOf = (flags: StartFlags): number => (flags.forSeconds === null ? 5 : 0);

/** Tells what is going on, and every few seconds that it still is. */
async function withHeartbeat<T>(
  terminal: Terminal,
  nowMs: () => number,
  work: (onProgress: (line: string) => void) => Promise<T>,
): Promise<T> {
  let current = 'starting';
  let sinceMs = nowMs();
  const timer = setInterval(() => {
    terminal.say(`  ... still waiting, ${Math.round((nowMs() - sinceMs) / 1000)} s after: ${current}`);
  }, 5_000);
  try {
    return await work((line) => {
      current = line;
      sinceMs = nowMs();
      terminal.say(`  ${line}`);
    });
  } finally {
    clearInterval(timer);
  }
}

interface RunParts {
  state: string;
  stack: LocalStack;
  guardian: Guardian;
  ports: PagePorts;
  wasCold: boolean;
}

class Run {
  #o: RunOptions;
  #state: string;
  #stack: LocalStack;
  #wasCold: boolean;
  #services: SupervisedService[];
  #history: RunHistory;
  #env: NodeJS.ProcessEnv;
  #settings: Record<string, unknown>;
  #gaveUp: string | null = null;
  /** Kafka, the registry or Redis ended by itself. */
  #stackDown: string | null = null;
  #crashes = 0;
  #dashboardUrl: string | null = null;
  #lastServicesFile = '';

  constructor(o: RunOptions, { state, stack, guardian, ports, wasCold }: RunParts) {
    this.#o = o;
    this.#state = state;
    this.#stack = stack;
    this.#wasCold = wasCold;
    this.#settings = runSettings(readProfile(PROFILE), { flags: o.flags, addresses: stack, ports, state });
    const configFile = path.join(state, 'run', 'config.json');
    writeFileSync(configFile, `${JSON.stringify(this.#settings, null, 2)}\n`);
    this.#env = {
      ...process.env,
      ONEMALL_CONFIG: configFile,
      // Parsed code is kept from start to start.
      NODE_COMPILE_CACHE: path.join(cacheDir(), 'node'),
    };
    this.#history = new RunHistory();
    this.#services = planProcesses({ flags: o.flags, hasRedis: stack.redisUrl !== null }).map(
      (plan) =>
        new SupervisedService(plan, {
          stateDir: state,
          env: this.#env,
          guardian,
          niceness: nicenessOf(o.flags),
          nowMs: o.nowMs,
          onState: (name, s) => this.#history.setState(name, s),
          onCrash: (name, story) => {
            this.#crashes++;
            o.terminal.say(`${name} ${story}`);
          },
          onGiveUp: (name, reason) => {
            this.#gaveUp ??= `${name} stays down: ${reason}`;
          },
        }),
    );
    for (const { plan } of this.#services) this.#history.addStage(plan.name, plan.role);
    for (const child of stack.processes)
      void child.exited.then(({ code, signal }) => {
        this.#stackDown ??= `${child.name} ended (${signal ?? `exit code ${code}`}), and nothing works without it; its log: ${child.logFile}`;
      });
  }

  async go(): Promise<RunReport> {
    const { terminal, flags, nowMs } = this.#o;
    const io = await connectKafka({
      brokers: this.#stack.brokers,
      registryUrl: this.#stack.registryUrl,
      namespace: String(this.#settings.namespace),
      clientId: 'local-stack',
    });
    try {
      await io.createTopics(ALL_TOPICS, { retention: retentionOf(this.#settings) });
      await io.registerSchemas(ALL_TOPICS);
      terminal.say(`  ${ALL_TOPICS.length} topics and their schemas are there`);
      const deadBefore = await deadLetterCount(io);
      terminal.say(`Starting ${this.#services.map((s) => s.plan.name).join(', ')}`);
      this.#history.begin(nowMs());
      for (const service of this.#services) if (service.plan.wave === 1) service.start();
      terminal.goLive();
      await this.#watch();
      terminal.endLive();
      await this.#stopServices();
      const oracle = await this.#verify();
      terminal.say('Stopping Redis, the registry and Kafka');
      return buildReport({
        source: flags.source,
        history: this.#history,
        endedMs: nowMs(),
        mustProduce: this.#services.filter((s) => s.plan.mustProduce).map((s) => s.plan.name),
        askedMs: this.#o.askedMs,
        wasCold: this.#wasCold,
        deadLetters: this.#stackDown ? 0 : (await deadLetterCount(io)) - deadBefore,
        oracle,
        crashes: this.#crashes,
        gaveUp: this.#gaveUp,
        interrupted: flags.forSeconds !== null && this.#o.stop.aborted,
      });
    } finally {
      await Promise.all(this.#services.map((s) => s.stop()));
      await io.close();
    }
  }

  /** Until Ctrl-C, the end of --for, or (under --for) a service that stays down. */
  async #watch(): Promise<void> {
    const { flags, stop, nowMs, terminal } = this.#o;
    const endMs =
      flags.forSeconds === null ? Number.POSITIVE_INFINITY : this.#history.beganMs + flags.forSeconds * 1000;
    while (!stop.aborted && nowMs() < endMs) {
      if (this.#stackDown) {
        terminal.say(this.#stackDown);
        this.#gaveUp ??= this.#stackDown;
        return;
      }
      if (this.#gaveUp && flags.forSeconds !== null) return;
      await this.#poll();
      this.#startSecondWave();
      terminal.show(
        {
          source: flags.source,
          seconds: (nowMs() - this.#history.beganMs) / 1000,
          stages: this.#history.views(),
          dashboardUrl: this.#dashboardUrl,
        },
        nowMs(),
      );
      await delay(POLL_MS, undefined, { signal: stop }).catch(() => {});
    }
  }

  #startSecondWave(): void {
    const first = this.#services.filter((s) => s.plan.wave === 1);
    const waitedMs = this.#o.nowMs() - this.#history.beganMs;
    const ready = first.every((s) => this.#history.view(s.plan.name)?.state === 'running');
    if (!ready && waitedMs < FIRST_WAVE_MS) return;
    for (const service of this.#services)
      if (service.plan.wave === 2 && service.process === null) service.start();
  }

  async #poll(): Promise<void> {
    await Promise.all(
      this.#services.map(async ({ plan, process: child }) => {
        if (!child) return;
        const status = await child.status<StageStatus>();
        if (status && !child.exit) this.#history.record(this.#o.nowMs(), plan.name, status);
        this.#history.recordRss(plan.name, child.rssBytes());
      }),
    );
    for (const child of this.#stack.processes) this.#history.recordRss(child.name, child.rssBytes());
    this.#history.recordRss('launcher', process.memoryUsage.rss());
    this.#shareAddresses();
  }

  /** services.json lets the dashboard and the user's own tools find the services. */
  #shareAddresses(): void {
    const view = this.#services.find((s) => s.plan.role === 'view')?.process;
    if (view && !this.#dashboardUrl) {
      this.#dashboardUrl = view.printed(/^onemall-dashboard (\S+)/m);
      if (this.#dashboardUrl) this.#o.terminal.say(`Dashboard: ${this.#dashboardUrl}`);
    }
    const addresses = Object.fromEntries(
      this.#services.flatMap((s) =>
        s.process?.url && s.plan.role !== 'view' ? [[s.plan.name, s.process.url]] : [],
      ),
    );
    const text = JSON.stringify(addresses);
    if (text === this.#lastServicesFile) return;
    this.#lastServicesFile = text;
    const file = path.join(this.#state, 'run', 'services.json');
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }

  async #stopServices(): Promise<void> {
    const { terminal, flags, nowMs, stop } = this.#o;
    terminal.say('Stopping');
    this.#history.markEnd(nowMs());
    await Promise.all(this.#services.filter((s) => s.plan.role === 'source').map((s) => s.stop()));
    if (flags.forSeconds !== null && !stop.aborted && !this.#gaveUp) await this.#settle();
    for (const service of this.#services) await service.stop();
  }

  #settle(): Promise<void> {
    const { nowMs, stop } = this.#o;
    return settle({
      poll: () => this.#poll(),
      views: () => this.#history.views(),
      pause: () => delay(POLL_MS, undefined, { signal: stop }).catch(() => {}),
      nowMs,
      untilMs: nowMs() + SETTLE_MS,
      stop,
    });
  }

  /** null where there is nothing to compare, or nobody waits for it. */
  async #verify(): Promise<OracleVerdict | null> {
    const { flags, stop, terminal } = this.#o;
    if (flags.forSeconds === null || stop.aborted || this.#stackDown || !this.#runs('sample-assembler'))
      return null;
    terminal.say('Comparing the samples with the oracle');
    const verdict = await askOracle(this.#env, stop);
    return stop.aborted ? null : verdict;
  }

  #runs(name: string): boolean {
    return this.#services.some((s) => s.plan.name === name);
  }
}

const deadLetterCount = async (io: KafkaIo): Promise<number> =>
  (await io.endOffsets('dead-letters')).reduce((sum, p) => sum + p.offset, 0);
