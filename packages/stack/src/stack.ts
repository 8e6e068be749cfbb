/** Real Kafka, schema registry and (where there is one) Redis as child processes on loopback ports. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Child } from './child.ts';
import {
  type CommandContext,
  type CommandLine,
  kafkaCommand,
  redisCommand,
  registryCommand,
  type StackPorts,
} from './commands.ts';
import { areDownloaded, cacheDir, download, downloadsIn } from './downloads.ts';
import type { Guardian } from './guardian.ts';
import { answersOk, freePorts, isKafkaReady, isPortFree, isRedisReady } from './loopback.ts';
import { checkPrerequisites, findOrInstallRedis, MissingPrerequisiteError } from './prerequisites.ts';
import { endStale, recordProcess } from './stale.ts';
import { waitFor } from './wait.ts';

export interface LocalStackOptions {
  /** Kafka's log, the registry's database, Redis' log; run/ and logs/ beside them. */
  dataDir: string;
  guardian: Guardian;
  redis: boolean;
  onProgress?: (line: string) => void;
  /** Ports that must be these. Others are those of the last start where still free, else any free ones. */
  ports?: Partial<StackPorts>;
  kafkaHeap?: string;
  /** Lines added to the broker's settings; the last of several for one setting counts. */
  kafkaProperties?: string;
  registryHeap?: string;
  niceness?: number;
}

export interface StackAddresses {
  brokers: string;
  registryUrl: string;
  /** null where no redis-server was found: jobs are off then, and nothing else. */
  redisUrl: string | null;
}
export interface LocalStack extends StackAddresses {
  readonly processes: readonly Child[];
  /**
   * Ends Kafka and starts it again on its port and data; resolves when it answers. After a SIGKILL that takes about 9 s.
   * @param whileDown given the folder of Kafka's data, before the start
   */
  restartKafka(signal: 'SIGTERM' | 'SIGKILL', whileDown?: (dataDir: string) => Promise<void>): Promise<void>;
  /** Registry, Redis, then Kafka. */
  stop(): Promise<void>;
}

/** After a SIGKILL Kafka refuses its own return (DUPLICATE_BROKER_REGISTRATION) until the old session ends, 9 s. */
const START_TIMEOUT_MS = 90_000;

/** @throws MissingPrerequisiteError with one line per missing thing */
export async function startLocalStack(options: LocalStackOptions): Promise<LocalStack> {
  const progress = options.onProgress ?? (() => {});
  const cache = cacheDir();
  const { java, maven, missing } = checkPrerequisites(areDownloaded(downloadsIn(cache)));
  if (!java || missing.length > 0) throw new MissingPrerequisiteError(missing.join('\n'));
  const downloads = await download(maven, progress, cache);
  const redisServer = options.redis ? findOrInstallRedis(progress) : null;

  const dataDir = path.resolve(options.dataDir);
  const runDir = path.join(dataDir, 'run');
  const logsDir = path.join(dataDir, 'logs');
  for (const folder of [runDir, logsDir, ...['kafka', 'registry', 'redis'].map((n) => path.join(dataDir, n))])
    mkdirSync(folder, { recursive: true });
  await endStale(runDir, progress);
  const ports = await choosePorts(runDir, options.ports ?? {});
  const context: CommandContext = { java, downloads, cache, dataDir, runDir, ports };

  let started: { child: Child; line: CommandLine }[] = [];
  const start = async (name: string, line: CommandLine, ready: () => Promise<boolean>): Promise<void> => {
    const t0 = performance.now();
    const child = new Child({
      ...line,
      name,
      cwd: runDir,
      logFile: path.join(logsDir, `${name}.log`),
      kind: 'stack',
      guardian: options.guardian,
      ...(options.niceness ? { niceness: options.niceness } : {}),
    });
    started.push({ child, line });
    if (child.pid) recordProcess(runDir, name, child.pid);
    await waitFor(ready, {
      timeoutMs: START_TIMEOUT_MS,
      what: `${name} to answer; its log is ${child.logFile}`,
      check: () => {
        if (child.exit)
          throw new Error(
            `${name} ended with exit code ${child.exit.code} while starting; its log is ${child.logFile} and ends with:\n${child.logTail()}`,
          );
      },
    });
    progress(`${name} is up after ${((performance.now() - t0) / 1000).toFixed(1)} s`);
  };
  const stop = async (): Promise<void> => {
    const one = async ({ child, line }: (typeof started)[number]): Promise<void> => {
      const exit = await child.stop(30_000);
      if (exit.signal !== 'SIGKILL') line.afterStop?.();
    };
    await Promise.all(started.filter((s) => s.child.name !== 'kafka').map(one));
    await Promise.all(started.filter((s) => s.child.name === 'kafka').map(one));
  };

  const registryUrl = `http://127.0.0.1:${ports.registry}/apis/ccompat/v7`;
  const adminUrl = `http://127.0.0.1:${ports.registryAdmin}/health/ready`;
  const startKafka = (): Promise<void> =>
    start('kafka', kafkaCommand(context, options.kafkaHeap ?? '512m', options.kafkaProperties), () =>
      isKafkaReady(ports.kafka),
    );
  const parts = [
    startKafka(),
    start(
      'registry',
      registryCommand(context, options.registryHeap ?? '256m'),
      async () => (await answersOk(adminUrl)) && (await answersOk(`${registryUrl}/subjects`)),
    ).then(() => setCompatibility(registryUrl)),
    ...(redisServer
      ? [start('redis', redisCommand(context, redisServer), () => isRedisReady(ports.redis))]
      : []),
  ];
  const failed = (await Promise.allSettled(parts)).filter((r) => r.status === 'rejected');
  if (failed.length > 0) {
    await stop();
    throw failed[0]!.reason;
  }
  return {
    brokers: `127.0.0.1:${ports.kafka}`,
    registryUrl,
    redisUrl: redisServer ? `redis://127.0.0.1:${ports.redis}` : null,
    get processes() {
      return started.map((s) => s.child);
    },
    restartKafka: async (signal, whileDown = async () => {}) => {
      const kafka = started.find((s) => s.child.name === 'kafka')!.child;
      kafka.kill(signal);
      await kafka.exited;
      await whileDown(path.join(dataDir, 'kafka'));
      started = started.filter((s) => s.child !== kafka);
      await startKafka();
    },
    stop,
  };
}

/** Apicurio starts with NONE, under which any change of a schema is accepted. */
async function setCompatibility(registryUrl: string): Promise<void> {
  const response = await fetch(`${registryUrl}/config`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ compatibility: 'BACKWARD_TRANSITIVE' }),
  });
  if (!response.ok)
    throw new Error(
      `The registry refused its global compatibility: ${response.status} ${await response.text()}`,
    );
}

/** The ports of the last start where they are still free, so that addresses stay the same from run to run. */
async function choosePorts(runDir: string, fixed: Partial<StackPorts>): Promise<StackPorts> {
  const file = path.join(runDir, 'ports.json');
  let last: Partial<StackPorts> = {};
  try {
    last = JSON.parse(readFileSync(file, 'utf8')) as Partial<StackPorts>;
  } catch {
    // The first start, or a torn file: any free ports will do.
  }
  const names = ['kafka', 'controller', 'registry', 'registryAdmin', 'redis'] as const;
  const fresh = await freePorts(names.length);
  const ports = {} as StackPorts;
  for (const [i, name] of names.entries()) {
    const asked = fixed[name];
    if (asked !== undefined) {
      if (!(await isPortFree(asked)))
        throw new Error(
          `Port ${asked}, asked for ${name}, is taken by another program. Stop that one, or ask for another port (0 or nothing takes a free one).`,
        );
      ports[name] = asked;
    } else {
      const before = last[name];
      ports[name] = before !== undefined && (await isPortFree(before)) ? before : fresh[i]!;
    }
  }
  writeFileSync(file, JSON.stringify(ports));
  return ports;
}
