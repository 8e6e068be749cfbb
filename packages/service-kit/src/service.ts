/** Runs one service: config, log, health endpoints, signals. A service's main.ts is one call of `runService`. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import pino, { type Logger } from 'pino';
import type { ArtifactStore } from './artifact-store.ts';
import { openArtifactStore } from './artifact-store-open.ts';
import { type Clock, systemClock } from './clock.ts';
import { type CommonConfig, ConfigError, printableConfig } from './config.ts';
import { Lifecycle } from './lifecycle.ts';
import { StageMeter } from './stage-meter.ts';

export type { Logger };

export interface ServiceContext<C extends CommonConfig = CommonConfig> {
  config: C;
  log: Logger;
  clock: Clock;
  meter: StageMeter;
  artifacts: ArtifactStore;
  /** Ends the process with exit code 1 and the error in the log; for loops that run beside `start`. */
  fail(error: unknown): void;
  /** Aborted when the service drains: loops take no new input and end. */
  stopping: AbortSignal;
}

export interface RunningService {
  /** Finishes and commits what is under way, then closes. Called once. */
  stop(): Promise<void>;
}

export interface ServiceDefinition<C extends CommonConfig> {
  name: string;
  /** Called first, so that a wrong setting is one clear message. */
  config: () => C;
  /** Connects, restores and starts; the service is ready when it resolves. */
  start: (context: ServiceContext<C>) => Promise<RunningService>;
  /** A drain that takes longer is cut off. */
  maxDrainMs?: number;
}

/** Line that a launcher waits for on stdout: where /live /ready /metrics /status answer. */
export const LISTENING_PREFIX = 'onemall-listening ';

export function createLogger(name: string, level: string): Logger {
  // Written at once: an asynchronous write still under way when the process exits lands behind, or is lost from, what
  // the exit flushes, and those last lines are the ones that tell why it ended.
  const stdout = pino.destination({ dest: 1, sync: true });
  return pino({ name, level, base: { service: name }, timestamp: pino.stdTimeFunctions.isoTime }, stdout);
}

export async function runService<C extends CommonConfig>(definition: ServiceDefinition<C>): Promise<void> {
  let config: C;
  let artifacts: ArtifactStore;
  try {
    config = definition.config();
    artifacts = openArtifactStore(config);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(`${definition.name}: ${error.message}`);
    process.exit(2);
  }
  const log = createLogger(definition.name, config.logLevel);
  const meter = new StageMeter(definition.name);
  const stopping = new AbortController();
  let running: RunningService | undefined;
  let server: Server | undefined;

  const exit = (code: number): void => {
    server?.close();
    process.exit(code);
  };
  const lifecycle = new Lifecycle((action) => {
    if (action === 'exit0') exit(0);
    if (action === 'exit1') exit(1);
    if (action === 'drain') void drain();
  });
  const drain = async (): Promise<void> => {
    log.info('draining');
    const limit = setTimeout(() => {
      log.error(
        { maxDrainMs: definition.maxDrainMs ?? 9_000 },
        'the drain took too long and is cut off; nothing committed is lost',
      );
      lifecycle.signal('failed');
    }, definition.maxDrainMs ?? 9_000);
    stopping.abort(new Error('the service is stopping'));
    try {
      await running?.stop();
      clearTimeout(limit);
      log.info('stopped');
      lifecycle.signal('stopped');
    } catch (error) {
      log.error({ err: error }, 'the drain failed');
      lifecycle.signal('failed');
    }
  };
  const fail = (error: unknown): void => {
    if (lifecycle.state === 'draining') {
      log.warn({ err: error }, 'while draining');
      return;
    }
    log.fatal({ err: error }, error instanceof Error ? error.message : String(error));
    lifecycle.signal('failed');
  };
  process.on('SIGTERM', () => lifecycle.signal('stop'));
  process.on('SIGINT', () => lifecycle.signal('stop'));
  process.on('unhandledRejection', fail);
  process.on('uncaughtException', fail);

  server = createServer((request, response) => {
    const answer = (code: number, body: string, type = 'application/json'): void => {
      response.writeHead(code, { 'content-type': type }).end(body);
    };
    if (request.url === '/live')
      return answer(lifecycle.state === 'failed' ? 503 : 200, JSON.stringify({ state: lifecycle.state }));
    if (request.url === '/ready')
      return answer(lifecycle.state === 'running' ? 200 : 503, JSON.stringify({ state: lifecycle.state }));
    if (request.url === '/status') return answer(200, JSON.stringify(meter.status(lifecycle.state)));
    if (request.url === '/metrics')
      return void meter.registry
        .metrics()
        .then((text) => answer(200, text, meter.registry.contentType), fail);
    answer(404, JSON.stringify({ error: `No ${request.url} here: /live /ready /metrics /status` }));
  });
  try {
    await new Promise<void>((resolve, reject) =>
      server.once('error', reject).listen(config.httpPort, config.httpHost, resolve),
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    console.error(
      `${definition.name}: port ${config.httpPort} is taken; set ONEMALL_HTTP_PORT to another one, or to 0 for any free one`,
    );
    process.exit(2);
  }
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${LISTENING_PREFIX}http://${config.httpHost}:${port}\n`);
  log.info({ config: printableConfig(config) }, 'starting');
  try {
    running = await definition.start({
      config,
      log,
      clock: systemClock,
      meter,
      artifacts,
      fail,
      stopping: stopping.signal,
    });
  } catch (error) {
    if (!stopping.signal.aborted) fail(error);
    return;
  }
  if (stopping.signal.aborted) return void running.stop();
  lifecycle.signal('ready');
  log.info('running');
}
