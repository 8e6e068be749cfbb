/**
 * The cluster as the data plane sees it: leaders, coordinators, and requests that wait for a broker which is away.
 * Errors of the protocol become `BrokerError` with Kafka's name for the code.
 */
import { logLevel } from 'kafkajs';
import { connectionSecurity } from './access.ts';
import type { WireWriter } from './data-plane/wire.ts';
import { KafkaIoError, TopicMissingError } from './errors.ts';
import {
  type Broker,
  type Cluster,
  createCluster,
  createLogger,
  Encoder,
  errorCodes,
} from './kafkajs-internals.ts';
import type { LogWriter } from './log-writer.ts';
import { MissingTopics } from './missing-topics.ts';
import type { KafkaAccess } from './ports.ts';
import { Sockets } from './sockets.ts';

const known = new Map(errorCodes.map((e) => [e.code, e]));
/** Codes newer than kafkajs' table, and one whose retriability it has wrong. */
const NEWER: Record<number, { type: string; retriable: boolean }> = {
  55: { type: 'OPERATION_NOT_ATTEMPTED', retriable: false },
  74: { type: 'FENCED_LEADER_EPOCH', retriable: true },
  75: { type: 'UNKNOWN_LEADER_EPOCH', retriable: true },
  78: { type: 'OFFSET_NOT_AVAILABLE', retriable: true },
  88: { type: 'UNSTABLE_OFFSET_COMMIT', retriable: true },
  90: { type: 'PRODUCER_FENCED', retriable: false },
  120: { type: 'TRANSACTION_ABORTABLE', retriable: false },
};

/** A broker's answer other than success. */
export class BrokerError extends KafkaIoError {
  override name = 'BrokerError';
  readonly code: number;
  readonly type: string;
  readonly retriable: boolean;
  constructor(code: number, during: string) {
    const meaning = NEWER[code] ?? known.get(code) ?? { type: `ERROR_${code}`, retriable: false };
    super(`The broker answered ${meaning.type} (${code}) ${during}`);
    this.code = code;
    this.type = meaning.type;
    this.retriable = meaning.retriable;
  }
}

/** @throws BrokerError unless the code is 0 */
export function check(code: number, during: string): void {
  if (code !== 0) throw new BrokerError(code, during);
}

const PASSING = new Set([
  'KafkaJSConnectionError',
  'KafkaJSConnectionClosedError',
  'KafkaJSRequestTimeoutError',
  'KafkaJSBrokerNotFound',
  'KafkaJSLockTimeout',
  'KafkaJSTimeout',
  'KafkaJSGroupCoordinatorNotFound',
  'KafkaJSMetadataNotLoaded',
  'KafkaJSTopicMetadataNotLoaded',
  'KafkaJSNoBrokerAvailableError',
  'LeaderAwayError',
  'StaleOffsetError',
]);

/** True for errors that pass by themselves: a broker away, a leader moving, a coordinator loading. */
export function isPassing(error: unknown): boolean {
  if (error instanceof BrokerError) return error.retriable;
  if (!(error instanceof Error) || isDistrust(error)) return false;
  if (PASSING.has(error.name)) return true;
  // An error of this package has judged its cause already.
  if (error instanceof KafkaIoError) return false;
  const { retriable, cause } = error as Error & { retriable?: boolean };
  if (error.name === 'KafkaJSProtocolError') return retriable === true;
  return cause !== undefined && cause !== error && isPassing(cause);
}

/** The broker's certificate is not to be trusted: waiting does not change that. */
const isDistrust = (error: Error & { code?: unknown }): boolean =>
  typeof error.code === 'string' && /CERT|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(error.code);

/** No leader is known for a partition at the moment. */
export class LeaderAwayError extends KafkaIoError {
  override name = 'LeaderAwayError';
}

const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 2_000;
const WARN_AFTER_MS = 2_000;
/** Answers that say "ask again in a moment"; kafkajs' default of 300 ms makes transactions three times slower. */
const SOON_MS = 5;
const SOON = new Set(['CONCURRENT_TRANSACTIONS', 'UNSTABLE_OFFSET_COMMIT']);
const isSoonOver = (error: unknown): boolean =>
  (error instanceof BrokerError && SOON.has(error.type)) || (error as Error).name === 'StaleOffsetError';
export const COORDINATOR = { group: 0, transaction: 1 } as const;

export interface BrokersOptions {
  brokers: string;
  access: KafkaAccess;
  clientId: string;
  log: LogWriter;
}

export class Brokers {
  readonly #cluster: Cluster;
  readonly #addresses: string;
  readonly #log: LogWriter;
  readonly #sockets = new Sockets();
  readonly #closing = new AbortController();
  /** Node ids by kind and id. */
  readonly #coordinators = new Map<string, number>();

  constructor({ brokers, access, clientId, log }: BrokersOptions) {
    this.#addresses = brokers;
    this.#log = log;
    this.#cluster = new createCluster({
      logger: createLogger({ level: logLevel.WARN, logCreator: log.kafkajsLogCreator }),
      socketFactory: this.#sockets.factory,
      brokers: brokers.split(',').map((b) => b.trim()),
      ...connectionSecurity(access),
      clientId,
      connectionTimeout: 3_000,
      requestTimeout: 30_000,
      enforceRequestTimeout: true,
      metadataMaxAge: 300_000,
      retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 2 },
      allowAutoTopicCreation: false,
      isolationLevel: 1,
    });
  }

  /** Connects, waiting as long as no broker answers. */
  async connect(): Promise<void> {
    await this.waitOut('connecting', () => this.#cluster.connect());
  }

  /** Makes the leaders of these topics known; at once where they are. @throws TopicMissingError */
  async use(topics: readonly string[]): Promise<void> {
    if (topics.every((t) => this.#isKnown(t))) return;
    const missing = new MissingTopics();
    await this.waitOut(`looking up ${topics.join(', ')}`, async () => {
      try {
        await this.#cluster.connect();
        await this.#cluster.addMultipleTargetTopics(topics);
        if (!topics.every((t) => this.#isKnown(t))) await this.#cluster.refreshMetadata();
      } catch (error) {
        if (missing.isCertain(error, performance.now())) throw new TopicMissingError(topics, error);
        throw error;
      }
      const unknown = topics.find((t) => !this.#isKnown(t));
      if (unknown !== undefined) throw new LeaderAwayError(`No metadata of ${unknown} yet`);
    });
  }

  #isKnown(topic: string): boolean {
    try {
      return this.#cluster.findTopicPartitionMetadata(topic).length > 0;
    } catch {
      return false; // no metadata at all was loaded yet
    }
  }

  numPartitions(topic: string): number {
    return this.#cluster.findTopicPartitionMetadata(topic).length;
  }

  /** @throws LeaderAwayError */
  leaderOf(topic: string, partition: number): number {
    const found = this.#cluster.findTopicPartitionMetadata(topic).find((m) => m.partitionId === partition);
    if (!found || found.leader < 0)
      throw new LeaderAwayError(`Partition ${partition} of ${topic} has no leader at the moment`);
    return found.leader;
  }

  /** Whether the whole cluster, as far as it is known, is one broker. */
  get isOne(): boolean {
    return this.#cluster.getNodeIds().length === 1;
  }

  broker(nodeId: number): Promise<Broker> {
    return this.#cluster.findBroker({ nodeId });
  }

  anyBroker(): Promise<Broker> {
    return this.#cluster.findControllerBroker();
  }

  /** Remembered until a request fails in a way that may mean that it moved. */
  async coordinator(kind: keyof typeof COORDINATOR, id: string): Promise<Broker> {
    const remembered = this.#coordinators.get(kind + id);
    if (remembered !== undefined) return this.broker(remembered);
    const found = await this.#cluster.findGroupCoordinator({
      groupId: id,
      coordinatorType: COORDINATOR[kind],
    });
    this.#coordinators.set(kind + id, found.nodeId);
    return found;
  }

  /** New metadata after a leader moved or a broker went away; errors are left to the caller's next try. */
  async refresh(): Promise<void> {
    await this.#cluster.refreshMetadata().catch((error: unknown) => {
      if (!isPassing(error)) throw error;
    });
  }

  /**
   * Runs `attempt` until it works, refreshing metadata and backing off after errors that pass by themselves.
   * @throws what `attempt` throws otherwise, or when giveUpMs have gone by
   */
  async waitOut<T>(what: string, attempt: () => Promise<T>, options: { giveUpMs?: number } = {}): Promise<T> {
    const startedAt = performance.now();
    const deadline = startedAt + (options.giveUpMs ?? Number.POSITIVE_INFINITY);
    let backoffMs = FIRST_BACKOFF_MS;
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        const now = performance.now();
        if (this.#closing.signal.aborted || !isPassing(error) || now > deadline) throw error;
        if (now - startedAt > WARN_AFTER_MS)
          this.#log.warn(
            `Waiting for Kafka at ${this.#addresses} while ${what}: ${(error as Error).message}`,
          );
        if (isSoonOver(error)) {
          await this.#pause(SOON_MS);
          continue;
        }
        this.#coordinators.clear();
        await this.#pause(backoffMs);
        backoffMs = Math.min(MAX_BACKOFF_MS, backoffMs * 2);
        await this.refresh();
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    const stop = this.#closing.signal;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        stop.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      stop.addEventListener('abort', done, { once: true });
    });
  }

  /** Earliest (-2) or end (-1) offset. The end is the high watermark, or the last stable offset at read_committed. */
  async listOffsets(
    topic: string,
    partitions: readonly number[],
    timestamp: -1 | -2,
    isolation: 'read_committed' | 'read_uncommitted',
  ): Promise<Map<number, number>> {
    const found = await this.listOffsetsOf(
      partitions.map((partition) => ({ topic, partition })),
      timestamp,
      isolation,
    );
    return new Map(found.map(({ partition, offset }) => [partition, offset]));
  }

  /** As `listOffsets`, of several topics: one request to each leader. */
  async listOffsetsOf(
    wanted: readonly { topic: string; partition: number }[],
    timestamp: -1 | -2,
    isolation: 'read_committed' | 'read_uncommitted',
  ): Promise<{ topic: string; partition: number; offset: number }[]> {
    const names = [...new Set(wanted.map((w) => w.topic))].join(', ');
    return this.waitOut(`asking for offsets of ${names}`, async () => {
      const byLeader = Map.groupBy(wanted, (w) => this.leaderOf(w.topic, w.partition));
      const answers = [...byLeader].map(async ([nodeId, mine]) => {
        const broker = await this.broker(nodeId);
        const { responses } = await broker.listOffsets({
          isolationLevel: isolation === 'read_committed' ? 1 : 0,
          topics: [...Map.groupBy(mine, (w) => w.topic)].map(([topic, of]) => ({
            topic,
            partitions: of.map(({ partition }) => ({ partition, timestamp })),
          })),
        });
        return responses.flatMap(({ topic, partitions }) =>
          partitions.map(({ partition, offset }) => ({ topic, partition, offset: Number(offset) })),
        );
      });
      return (await Promise.all(answers)).flat();
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#sockets.closeWith(() => this.#cluster.disconnect());
  }
}

/** Sends one request whose body is already written and answers with the bytes after the correlation id. */
export function call(
  broker: Broker,
  api: { key: number; version: number; name: string; timeoutMs?: number },
  body: WireWriter,
): Promise<Buffer> {
  return broker.connectionPool.send<Buffer>({
    request: {
      apiKey: api.key,
      apiVersion: api.version,
      apiName: api.name,
      encode: async () => {
        const bytes = body.bytes();
        const encoder = new Encoder(bytes.length);
        encoder.writeBufferInternal(bytes);
        return encoder;
      },
    },
    response: {
      // A copy-free view: kafkajs hands over the whole receive buffer's slice.
      decode: async (payload) => payload,
      parse: async (payload) => payload,
    },
    ...(api.timeoutMs !== undefined && { requestTimeout: api.timeoutMs }),
  });
}
