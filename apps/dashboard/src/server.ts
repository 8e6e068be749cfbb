/** The web page: static files, the status history, a stream of new points, and the named queries. */
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock, Logger, StageStatus } from '@onemall/service-kit';
import type { DashboardConfig } from './config.ts';
import { History } from './stages/history.ts';

const PUBLIC = fileURLToPath(new URL('../public/', import.meta.url));
const QUERIES = fileURLToPath(new URL('../../../queries/', import.meta.url));
const UPLOT = path.dirname(createRequire(import.meta.url).resolve('uplot'));
const TYPES: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
};
const FILES: Record<string, string> = {
  '/': `${PUBLIC}index.html`,
  '/app.js': `${PUBLIC}app.js`,
  '/style.css': `${PUBLIC}style.css`,
  '/uPlot.js': path.join(UPLOT, 'uPlot.esm.js'),
  '/uPlot.css': path.join(UPLOT, 'uPlot.min.css'),
};

export interface Dashboard {
  url: string;
  close(): Promise<void>;
}

export async function serveDashboard(
  config: DashboardConfig,
  { clock, log, stopping }: { clock: Clock; log: Logger; stopping: AbortSignal },
): Promise<Dashboard> {
  const history = new History(config.historyPoints);
  const listeners = new Set<ServerResponse>();
  const server: Server = createServer((request, response) => {
    route(request, response).catch((error) => {
      log.warn({ err: error, url: request.url }, 'request failed');
      if (!response.headersSent) response.writeHead(500);
      response.end(String(error));
    });
  });

  const route = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://dashboard');
    const file = FILES[url.pathname];
    if (file) {
      response.writeHead(200, { 'content-type': `${TYPES[path.extname(file)]}; charset=utf-8` });
      response.end(await readFile(file));
    } else if (url.pathname === '/api/history') {
      json(response, 200, { points: history.series(), now: history.latest() ?? null });
    } else if (url.pathname === '/api/stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      listeners.add(response);
      response.on('close', () => listeners.delete(response));
    } else if (url.pathname === '/api/queries') {
      json(response, 200, listQueries());
    } else if (url.pathname.startsWith('/api/queries/')) {
      await runNamedQuery(url.pathname.slice('/api/queries/'.length), response);
    } else {
      json(response, 404, { error: `No ${url.pathname} here` });
    }
  };

  const runNamedQuery = async (name: string, response: ServerResponse): Promise<void> => {
    const query = listQueries().find((q) => q.name === name);
    if (!query) return json(response, 404, { error: `No query ${name}` });
    const sqlUrl = config.sqlUrl || sinkAddress(config.clickhousePath);
    if (!sqlUrl) return json(response, 503, { error: 'The metrics-sink is not running yet' });
    const body = JSON.stringify({ query: query.sql, format: 'JSONCompact' });
    const answer = await fetch(sqlUrl, { method: 'POST', body, signal: AbortSignal.timeout(15_000) });
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
  };

  const poll = async (): Promise<void> => {
    while (!stopping.aborted) {
      const services = await askAll({ ...config.services, ...fromFile(config.servicesFile) });
      history.add({ atMs: clock.nowMs(), services });
      const event = `data: ${JSON.stringify({ points: history.latestSeries(), now: history.latest() })}\n\n`;
      for (const listener of listeners) listener.write(event);
      await clock.sleep(config.pollMs, stopping).catch(() => {});
    }
  };

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(
              `Port ${config.dashboardPort} for the dashboard is taken: set ONEMALL_DASHBOARD_PORT, 0 takes a free one`,
            )
          : error,
      ),
    );
    server.listen(config.dashboardPort, config.dashboardHost, resolve);
  });
  const polling = poll();
  return {
    url: `http://${config.dashboardHost}:${(server.address() as AddressInfo).port}/`,
    close: async () => {
      await polling;
      for (const listener of listeners) listener.end();
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** A service that does not answer is left out of the point: the page shows it as down. */
async function askAll(addresses: Record<string, string>): Promise<Record<string, StageStatus>> {
  const answers = await Promise.all(
    Object.entries(addresses).map(async ([name, url]) => {
      const response = await fetch(new URL('/status', url), { signal: AbortSignal.timeout(2_000) }).catch(
        () => undefined,
      );
      return response?.ok ? ([name, (await response.json()) as StageStatus] as const) : undefined;
    }),
  );
  return Object.fromEntries(answers.filter((a) => a !== undefined));
}

function fromFile(file: string): Record<string, string> {
  if (!file) return {};
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
  } catch {
    return {}; // the launcher has not written it yet, or is just writing it
  }
}

function sinkAddress(clickhousePath: string): string | undefined {
  try {
    const text = readFileSync(`${clickhousePath.replace(/\/+$/, '')}.address.json`, 'utf8');
    return (JSON.parse(text) as { sqlUrl: string }).sqlUrl;
  } catch {
    return undefined; // no sink has started here yet
  }
}

function listQueries(): { name: string; about: string; sql: string }[] {
  return readdirSync(QUERIES)
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .map((file) => {
      const sql = readFileSync(QUERIES + file, 'utf8');
      return { name: file.slice(0, -4), about: sql.split('\n')[0]!.replace(/^-- /, ''), sql };
    });
}

function json(response: ServerResponse, code: number, body: unknown): void {
  response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
