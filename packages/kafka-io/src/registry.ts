/** The schema registry: registering and looking up only. Values are read and written by avsc, see value-codec.ts. */
import { type COMPATIBILITY, SchemaRegistry } from '@kafkajs/confluent-schema-registry';
import { BadRecordError, fullSchema, type TopicName, topicSpec } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import { KafkaIoError, SchemaRefusedError } from './errors.ts';
import type { LogWriter } from './log-writer.ts';
import type { TopicNames } from './topic-names.ts';

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 5_000;
/** A registry that took a request and answers nothing would be waited for without an end and without a word. */
const TIMEOUT_MS = 10_000;
const WARN_AFTER_MS = 5_000;
/** A schema that was not there a moment ago may be there now; records that name it should not ask each time. */
const UNKNOWN_FOR_MS = 1_000;

interface ResponseError extends Error {
  status?: number;
}

export class Registry {
  readonly #client: SchemaRegistry;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #names: TopicNames;
  readonly #clock: Clock;
  readonly #log: LogWriter;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();
  readonly #unknown = new Map<number, { untilMs: number; error: BadRecordError }>();

  constructor(options: {
    url: string;
    credentials: { username: string; password: string } | undefined;
    clientId: string;
    names: TopicNames;
    clock: Clock;
    log: LogWriter;
    timeoutMs?: number;
  }) {
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#timeoutMs = timeoutMs;
    const { base, credentials } = withoutCredentials(options.url, options.credentials);
    this.#url = base;
    this.#headers = credentials
      ? {
          authorization: `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`,
        }
      : {};
    this.#names = options.names;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#client = new SchemaRegistry({
      host: this.#url,
      clientId: options.clientId,
      retry: { retries: 0 },
      ...(credentials ? { auth: credentials } : {}),
      // An answer that is no schema fails with its status, like one that refuses.
      middlewares: [
        ({ resourceName }) => ({
          prepareRequest: async (next) => (await next()).enhance({ timeout: timeoutMs }),
          response: async (next) => {
            const response = await next();
            if (resourceName === 'Schema' && !holdsSchema(response.data()))
              throw Object.assign(new Error('no schema in the body'), { status: response.status() });
            return response;
          },
        }),
      ],
    });
  }

  subject(topic: TopicName): string {
    return `${this.#names.physical(topic)}-value`;
  }

  /**
   * Registers this build's schema of the topic and sets the table's compatibility on its subject.
   * @returns the schema id
   * @throws SchemaRefusedError when the registry holds an incompatible schema or another compatibility
   */
  async register(topic: TopicName): Promise<number> {
    const subject = this.subject(topic);
    const { compatibility, schema } = topicSpec(topic);
    const request = { type: 'AVRO' as const, schema: JSON.stringify(fullSchema(schema)) };
    try {
      await this.#wait(`setting the compatibility of ${subject}`, () =>
        this.#ensureCompatibility(subject, compatibility),
      );
      const { id } = await this.#wait(`registering ${subject}`, () =>
        this.#client.register(request as Parameters<SchemaRegistry['register']>[0], {
          subject,
          compatibility: compatibility as COMPATIBILITY,
        }),
      );
      return id;
    } catch (cause) {
      const { status, message, name } = cause as ResponseError;
      if (status === 409 || status === 422 || name === 'ConfluentSchemaRegistryCompatibilityError')
        throw new SchemaRefusedError(
          `The registry at ${this.#url} refuses schemas/${schema}.avsc for subject ${subject}: ${message}. ` +
            `A change must keep ${compatibility}: give new fields a default and remove only fields that have one; ` +
            `or set the subject's compatibility: PUT ${this.#url}/config/${subject} {"compatibility":"${compatibility}"}`,
          { cause },
        );
      throw cause;
    }
  }

  /**
   * The client sets a subject's compatibility only after it registered, so that a subject without one would take any
   * change once. A subject that does not exist yet has nothing to be compatible with.
   */
  async #ensureCompatibility(subject: string, compatibility: string): Promise<void> {
    const url = `${this.#url}/config/${encodeURIComponent(subject)}`;
    const timely = (): RequestInit => ({ signal: AbortSignal.timeout(this.#timeoutMs) });
    const current = await request(url, { ...timely(), headers: this.#headers });
    if (current.status !== 404) return;
    await request(url, {
      ...timely(),
      method: 'PUT',
      headers: { ...this.#headers, 'content-type': 'application/vnd.schemaregistry.v1+json' },
      body: JSON.stringify({ compatibility }),
    });
  }

  /**
   * The writer's schema of an id.
   * @throws BadRecordError UNKNOWN_SCHEMA when the registry answers that it does not have it, UNDECODABLE when it is no
   * Avro schema; KafkaIoError on any other answer: a registry that refuses us says nothing about the record
   */
  async schemaOf(id: number): Promise<unknown> {
    const unknown = this.#unknown.get(id);
    if (unknown && this.#clock.nowMs() < unknown.untilMs) throw unknown.error;
    try {
      const schema = await this.#wait(`looking up schema ${id}`, () => this.#client.getSchema(id));
      this.#unknown.delete(id);
      return JSON.parse(JSON.stringify(schema)) as unknown;
    } catch (cause) {
      const { status, message } = cause as ResponseError;
      if (this.#closing.signal.aborted)
        throw new KafkaIoError(`Closed while schema ${id} was looked up at ${this.#url}`, { cause });
      if (status !== undefined && status !== 404)
        throw new KafkaIoError(
          `Expected a schema or a 404 from the registry for schema ${id}, got status ${status}${status < 300 ? ' with a body that is no schema' : ''} ` +
            `from ${this.#url}/schemas/ids/${id}. Check registryUrl, what stands before the registry, and this service's access to it; no record is refused for it`,
          { cause },
        );
      const error =
        status === 404
          ? new BadRecordError(
              'UNKNOWN_SCHEMA',
              `Expected a schema id that the registry at ${this.#url} knows, got ${id}`,
              { cause },
            )
          : new BadRecordError(
              'UNDECODABLE',
              `Expected an Avro schema behind id ${id} of the registry at ${this.#url}: ${message}`,
              { cause },
            );
      if (this.#unknown.size > 1_000) this.#unknown.clear();
      this.#unknown.set(id, { untilMs: this.#clock.nowMs() + UNKNOWN_FOR_MS, error });
      throw error;
    }
  }

  /** Waits while the registry is away: no answer (in time), 408, 429 or 5xx. */
  async #wait<T>(what: string, ask: () => Promise<T>): Promise<T> {
    const begunMs = this.#clock.nowMs();
    let warned = false;
    for (let backoffMs = FIRST_BACKOFF_MS, tries = 1; ; tries++) {
      try {
        return await ask();
      } catch (error) {
        if (this.#closing.signal.aborted || !isAway(error)) throw error;
        if (!warned && (tries === 4 || this.#clock.nowMs() - begunMs > WARN_AFTER_MS)) {
          warned = true;
          this.#log.warn(
            `Waiting for the schema registry at ${this.#url} while ${what}: ${(error as Error).message}`,
          );
        }
        await this.#clock.sleep(backoffMs, this.#closing.signal);
        backoffMs = Math.min(MAX_BACKOFF_MS, backoffMs * 2);
      }
    }
  }

  close(): void {
    this.#closing.abort(new Error('the registry client is closed'));
  }
}

/** @throws an error with status 0 when nobody answers, like the client's */
async function request(url: string, init?: RequestInit): Promise<Response> {
  try {
    const response = await fetch(url, init);
    if (response.status < 500) return response;
    throw Object.assign(new Error(`status ${response.status}`), { status: response.status });
  } catch (error) {
    throw (error as ResponseError).status !== undefined
      ? error
      : Object.assign(new Error(`no answer: ${String((error as Error).cause ?? error)}`), { status: 0 });
  }
}

/** A user's name and password in the address count unless others are given; fetch refuses addresses that hold them. */
function withoutCredentials(
  address: string,
  given: { username: string; password: string } | undefined,
): { base: string; credentials: { username: string; password: string } | undefined } {
  const url = new URL(address);
  const { username, password } = url;
  url.username = '';
  url.password = '';
  const inAddress = username
    ? { username: decodeURIComponent(username), password: decodeURIComponent(password) }
    : undefined;
  return { base: url.href.replace(/\/$/, ''), credentials: given ?? inAddress };
}

/** `{"schema": "..."}`, parsed or not: the client parses by content type. */
function holdsSchema(data: unknown): boolean {
  try {
    const body = typeof data === 'string' ? (JSON.parse(data) as unknown) : data;
    return typeof (body as { schema?: unknown } | null)?.schema === 'string';
  } catch {
    return false;
  }
}

/** The client reports a request that got no answer with status 0 or 400 and no registry error code. */
function isAway(error: unknown): boolean {
  const { status, message = '' } = error as ResponseError;
  if (status === undefined) return false;
  return (
    status === 0 ||
    status === 408 ||
    status === 429 ||
    status >= 500 ||
    (status === 400 &&
      /ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|EPIPE|socket hang up|Timeout/i.test(
        message,
      ))
  );
}
