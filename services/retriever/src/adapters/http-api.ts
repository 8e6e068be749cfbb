/** POST /retrieve and GET /openapi.json on fastify: validation, limits, a bounded queue, timeouts. */
import type { AddressInfo } from 'node:net';
import swagger from '@fastify/swagger';
import type { Clock, Lease, Logger, StageMeter } from '@onemall/service-kit';
import Fastify, { type FastifyError, type FastifyInstance } from 'fastify';
import { type LoadedPolicy, NothingToServeError, type Retrieval } from '../retrieval.ts';
import { type AdmissionGate, OverloadedError } from './admission-gate.ts';
import { type ApiLimits, type RetrieveAnswer, type RetrieveBody, retrieveSchema } from './api-schema.ts';

export interface HttpApiOptions {
  host: string;
  port: number;
  limits: ApiLimits;
  maxBodyBytes: number;
  timeoutMs: number;
  /** Aborts when a request has used up its time; tests abort by hand. Default: AbortSignal.timeout. */
  startTimeout?: (timeoutMs: number) => AbortSignal;
  gate: AdmissionGate;
  allowedClockSkewMs: number;
  retrieval: Retrieval;
  /** The policy in use, held until released; undefined before the first. */
  acquirePolicy: () => Lease<LoadedPolicy> | undefined;
  clock: Clock;
  log: Logger;
  meter: StageMeter;
}

export interface HttpApi {
  url: string;
  port: number;
  /** Answers what was accepted, takes nothing new. */
  close(): Promise<void>;
}

const RETRY_AFTER_S = '1';

/** @throws Error when the port is taken */
export async function serveHttp(options: HttpApiOptions): Promise<HttpApi> {
  const { host, port, log } = options;
  const app = Fastify({
    bodyLimit: options.maxBodyBytes,
    // Fastify waits for a body for ever by default. Node takes the longer of the two timeouts for it and looks every 30 s.
    requestTimeout: options.timeoutMs,
    http: { headersTimeout: options.timeoutMs, connectionsCheckingInterval: options.timeoutMs },
    forceCloseConnections: 'idle',
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, verbose: true } },
    schemaErrorFormatter: (errors, place) => new Error(explain(errors, place)),
  });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'OneMall retriever',
        version: '1.0.0',
        description: 'Generative retrieval of products, videos and live rooms',
      },
    },
  });
  app.setErrorHandler<FastifyError>((error, _request, reply) => {
    const code = error.statusCode ?? 500;
    if (code >= 500) log.error({ err: error }, 'a request failed');
    return reply.code(code).send({ error: code >= 500 ? 'internal error, see the log' : error.message });
  });
  app.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .send({ error: `No ${request.method} ${request.url} here: POST /retrieve, GET /openapi.json` }),
  );
  addRetrieve(app, options);
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  try {
    await app.listen({ host, port });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause;
    throw new Error(
      `Port ${port} of ${host} is taken: set ONEMALL_RETRIEVER_PORT to another one, or to 0 for any free one`,
      { cause },
    );
  }
  const bound = (app.server.address() as AddressInfo).port;
  return { url: `http://${host}:${bound}`, port: bound, close: () => app.close() };
}

function addRetrieve(app: FastifyInstance, options: HttpApiOptions): void {
  const { clock, gate, meter, limits, timeoutMs, startTimeout = AbortSignal.timeout } = options;
  app.post<{ Body: RetrieveBody; Reply: RetrieveAnswer | { error: string } }>(
    '/retrieve',
    { schema: retrieveSchema(limits) },
    async ({ body }, reply) => {
      meter.add('http_requests');
      const startedMs = clock.nowMs();
      const wrong = contradiction(body, startedMs + options.allowedClockSkewMs);
      if (wrong) return reply.code(400).send({ error: wrong });
      const signal = startTimeout(timeoutMs);
      try {
        const answer = await gate.run(() => answerWithPolicy(body, options, signal), signal);
        meter.set('http_last_ms', clock.nowMs() - startedMs);
        return answer;
      } catch (error) {
        if (error instanceof OverloadedError || error instanceof NothingToServeError) {
          meter.add(error instanceof OverloadedError ? 'http_overloaded' : 'http_unavailable');
          return reply.code(503).header('retry-after', RETRY_AFTER_S).send({ error: error.message });
        }
        if (signal.aborted) {
          meter.add('http_timeouts');
          return reply
            .code(504)
            .send({ error: `The search took longer than ${timeoutMs} ms: ask for a smaller beamWidth` });
        }
        meter.add('http_failures');
        throw error;
      }
    },
  );
}

async function answerWithPolicy(
  body: RetrieveBody,
  { acquirePolicy, retrieval, clock, limits }: HttpApiOptions,
  signal: AbortSignal,
): Promise<RetrieveAnswer> {
  const lease = acquirePolicy();
  if (!lease)
    throw new NothingToServeError('No policy is loaded yet: the trainer has published none that loads');
  try {
    const { publication } = lease.model;
    const excluded = new Set(body.filters.excludeItemIds);
    if (body.filters.excludeBought) for (const { itemId } of body.history.buys) excluded.add(itemId);
    const items = await retrieval.retrieve(
      lease.model,
      {
        scenario: body.scenario,
        requestTimeMs: body.requestTimeMs ?? clock.nowMs(),
        history: body.history,
      },
      {
        k: body.k,
        beamWidth: body.beamWidth ?? Math.min(limits.maxBeam, Math.max(body.k, limits.defaultBeam)),
        filters: { categories: body.filters.categories, excludeItemIds: excluded },
        signal,
      },
    );
    return {
      policyVersion: publication.policyVersion,
      codebookVersion: publication.codebookVersions[body.scenario]!,
      items,
    };
  } finally {
    lease.release();
  }
}

/** What the JSON schema cannot say. */
function contradiction(body: RetrieveBody, latestMs: number): string | undefined {
  if (body.beamWidth !== undefined && body.beamWidth < body.k)
    return `body.beamWidth must be at least body.k (${body.k}), got ${body.beamWidth}`;
  if (body.requestTimeMs !== undefined && body.requestTimeMs > latestMs)
    return `body.requestTimeMs must be at most ${latestMs} (now and the allowed skew), got ${body.requestTimeMs}`;
  for (const behaviour of BEHAVIOURS) {
    // positions in the model count from the newest, and the longest histories lose their end
    const events = body.history[behaviour];
    const at = events.findIndex(({ eventTimeMs }, i) => i > 0 && eventTimeMs > events[i - 1]!.eventTimeMs);
    if (at >= 0)
      return `body.history.${behaviour} must be newest first, but the eventTimeMs of event ${at} (${events[at]!.eventTimeMs}) is later than that of event ${at - 1} (${events[at - 1]!.eventTimeMs})`;
  }
  return undefined;
}
const BEHAVIOURS = ['exposures', 'clicks', 'buys'] as const;

/** ajv errors as one line: where, what was expected, what came. */
function explain(
  errors: readonly {
    instancePath: string;
    keyword: string;
    message?: string;
    params: Record<string, unknown>;
  }[],
  place: string,
): string {
  return errors
    .map((error) => {
      const at = `${place}${error.instancePath.replaceAll('/', '.')}`;
      const { allowedValues, additionalProperty } = error.params as {
        allowedValues?: string[];
        additionalProperty?: string;
      };
      const expected = allowedValues
        ? `must be one of ${allowedValues.join(', ')}`
        : additionalProperty
          ? `must not have the property ${additionalProperty}`
          : error.message;
      const data = (error as { data?: unknown }).data;
      const came =
        error.keyword === 'required' || data === undefined || typeof data === 'object'
          ? ''
          : `, got ${JSON.stringify(data).slice(0, 80)}`;
      return `${at} ${expected}${came}`;
    })
    .join('; ');
}
