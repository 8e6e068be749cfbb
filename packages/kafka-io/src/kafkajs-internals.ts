/**
 * The few internals of kafkajs 2.2.4 that the data plane stands on, with types. The version is pinned exactly: the
 * conformance suite tells when another one behaves differently.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import type { ISocketFactory, logCreator, SASLOptions } from 'kafkajs';

const require = createRequire(import.meta.url);
export const internal = <T>(path: string): T => require(`kafkajs/src/${path}`) as T;

const WRITTEN_TO = Symbol('the socket that a request was written to');

/** One request as kafkajs sends it: `encode` gives something with a `buffer`, `decode` gets what follows the correlation id. */
export interface ProtocolCall<T> {
  request: {
    apiKey: number;
    apiVersion: number;
    apiName: string;
    encode(): Promise<unknown>;
  };
  response: { decode(payload: Buffer): Promise<T>; parse(decoded: T): Promise<T> };
  requestTimeout?: number;
  logResponseError?: boolean;
}

interface QueuedRequest {
  entry: {
    apiKey: number;
    apiName: string;
    apiVersion: number;
    correlationId: number;
    resolve(answer: { payload: Buffer }): void;
    reject(error: unknown): void;
    [WRITTEN_TO]?: Socket | null;
  };
  expectResponse: boolean;
  requestTimeout: number | null;
  sendRequest(): void;
}

export interface RequestQueue {
  pending: unknown[];
  inflight: Map<number, { entry: QueuedRequest['entry']; rejected(error: Error): void }>;
  emit(event: 'requestQueueEmpty'): void;
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  push(request: QueuedRequest): void;
  checkPendingRequests(): void;
  scheduleCheckPendingRequests(): void;
}

export interface Connection {
  clientId: string;
  socket: Socket;
  requestQueue: RequestQueue;
  nextCorrelationId(): number;
  /** @throws KafkaJSConnectionError */
  failIfNotConnected(): void;
  isAuthenticated(): boolean;
  authenticate(): Promise<void>;
}

export interface Broker {
  nodeId: number;
  connectionPool: {
    host: string;
    port: number;
    sasl: unknown;
    send<T>(call: ProtocolCall<T>): Promise<T>;
    getConnection(index: number): Promise<Connection>;
  };
  disconnect(): Promise<void>;
  listOffsets(request: {
    isolationLevel: number;
    topics: { topic: string; partitions: { partition: number; timestamp: number }[] }[];
  }): Promise<{
    responses: { topic: string; partitions: { partition: number; offset: string }[] }[];
  }>;
}

export interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  refreshMetadata(): Promise<void>;
  refreshMetadataIfNecessary(): Promise<void>;
  addMultipleTargetTopics(topics: readonly string[]): Promise<void>;
  getNodeIds(): string[];
  findTopicPartitionMetadata(
    topic: string,
  ): { partitionId: number; leader: number; partitionErrorCode: number }[];
  findBroker(at: { nodeId: number }): Promise<Broker>;
  findControllerBroker(): Promise<Broker>;
  findGroupCoordinator(of: { groupId: string; coordinatorType?: number }): Promise<Broker>;
  removeBroker(at: { host: string; port: number }): void;
}

export const createCluster: new (options: {
  logger: unknown;
  socketFactory: ISocketFactory;
  brokers: readonly string[];
  ssl?: ConnectionOptions;
  sasl?: SASLOptions;
  clientId: string;
  connectionTimeout: number;
  requestTimeout: number;
  enforceRequestTimeout: boolean;
  metadataMaxAge: number;
  retry: { initialRetryTime: number; maxRetryTime: number; retries: number };
  allowAutoTopicCreation: boolean;
  isolationLevel: number;
}) => Cluster = internal('cluster');

export const { createLogger } = internal<{
  createLogger(options: { level: number; logCreator: logCreator }): unknown;
}>('loggers');

export const createSocketFactory = internal<() => ISocketFactory>('network/socketFactory');

const { KafkaJSConnectionError, KafkaJSConnectionClosedError } = internal<{
  KafkaJSConnectionError: new (message: string, details: { broker: string }) => Error;
  KafkaJSConnectionClosedError: new (message: string, details: { host: string; port: number }) => Error;
}>('errors');

/** Type name and retriability that kafkajs has for a broker's error code. */
export const { errorCodes } = internal<{
  errorCodes: readonly { code: number; type: string; retriable: boolean; message: string }[];
}>('protocol/error');

/** kafkajs wraps bytes that are already encoded as long as they look like its own encoder. */
export const Encoder: new (initialSize: number) => { writeBufferInternal(bytes: Buffer): void } =
  internal('protocol/encoder');

// kafkajs schedules its throttle check even when nothing waits, with a negative delay: a timer that fires every
// millisecond per connection, and a TimeoutNegativeWarning from Node. Checking only while something waits does the same.
const queue = internal<{ prototype: RequestQueue }>('network/requestQueue').prototype;
const PENDING_CHECK_MS = 10;
queue.scheduleCheckPendingRequests = function scheduleOnlyWhilePending(this: RequestQueue): void {
  if (this.pending.length === 0 || this.throttleCheckTimeoutId) return;
  const throttledMs = this.throttledUntil - Date.now();
  this.throttleCheckTimeoutId = setTimeout(
    () => {
      this.throttleCheckTimeoutId = null;
      this.checkPendingRequests();
    },
    throttledMs > 0 ? throttledMs : PENDING_CHECK_MS,
  );
};

// Two requests that find a connection down each open a socket, and the one that loses stays open unread. Callers share
// the attempt that is under way.
interface Connecting {
  socket: Socket | null;
  requestQueue: RequestQueue;
  host: string;
  port: number;
  failIfNotConnected(): void;
  connect(): Promise<unknown>;
  disconnect(): Promise<unknown>;
}
const connections = internal<{ prototype: Connecting }>('network/connection').prototype;
const connectAlone = connections.connect;
const connecting = new WeakMap<object, Promise<unknown>>();
const owners = new WeakMap<object, Connecting>();
connections.connect = function connectOnce(this: Connecting): Promise<unknown> {
  let attempt = connecting.get(this);
  if (!attempt) {
    const before = this.socket;
    attempt = connectAlone.call(this).finally(() => connecting.delete(this));
    connecting.set(this, attempt);
    owners.set(this.requestQueue, this);
    const { socket } = this;
    if (socket && socket !== before) {
      socket.once('close', () => failUnanswered(this.requestQueue, socket));
      hearOnlyWhilePresent(this, socket);
    }
  }
  return attempt;
};

/**
 * kafkajs' listeners act on whatever socket the connection has by then: the end of one that was given up, which comes when the broker
 * closes it, would take its successor and the requests on it along.
 */
function hearOnlyWhilePresent(connection: Connecting, socket: Socket): void {
  for (const event of ['end', 'error', 'timeout']) {
    const heard = socket.listeners(event).at(-1) as (...args: unknown[]) => void;
    socket.off(event, heard);
    socket.on(event, (...args) => {
      if (!connection.socket || connection.socket === socket) heard(...args);
    });
  }
}

// What is written while a connection is being given up, after its other requests were told and before its socket is gone, gets no
// answer and no error, and the check of timeouts ends with the connection: whoever waits for it would wait for ever. So a socket
// that closes takes along what was written to it, and nothing is written to one that has closed.
const pushAny = queue.push;
queue.push = function pushToItsSocket(this: RequestQueue, request: QueuedRequest): void {
  const { entry, sendRequest } = request;
  const owner = owners.get(this);
  if (!owner) {
    pushAny.call(this, request);
    return;
  }
  pushAny.call(this, {
    ...request,
    sendRequest: () => {
      const { socket } = owner;
      entry[WRITTEN_TO] = socket;
      if (socket && !socket.destroyed) sendRequest();
      else queueMicrotask(() => failUnanswered(this, socket));
    },
  });
};

function failUnanswered(requests: RequestQueue, socket: Socket | null): void {
  const { host, port } = owners.get(requests) ?? { host: 'broker', port: 0 };
  for (const [correlationId, request] of requests.inflight)
    if (request.entry[WRITTEN_TO] === socket) {
      requests.inflight.delete(correlationId);
      request.rejected(new KafkaJSConnectionClosedError('Closed connection', { host, port }));
    }
  // A disconnect may wait for it.
  if (requests.pending.length === 0 && requests.inflight.size === 0) requests.emit('requestQueueEmpty');
}

// kafkajs answers null where no broker could be asked, on which its own callers break with a TypeError.
type Ask<T> = (at: { nodeId: string; broker: unknown }) => Promise<T>;
const brokerPool = internal<{ prototype: { withBroker<T>(ask: Ask<T>): Promise<T | null> } }>(
  'cluster/brokerPool',
).prototype;
const askAny = brokerPool.withBroker;
brokerPool.withBroker = async function askOrSayWhyNot<T>(this: unknown, ask: Ask<T>): Promise<T | null> {
  let reason: unknown;
  const answer = await askAny.call(this, (at) =>
    ask(at as Parameters<Ask<T>>[0]).catch((error: unknown) => {
      reason = error;
      throw error;
    }),
  );
  if (answer === null && reason !== undefined) throw reason;
  return answer as T | null;
};

// Disconnecting what is down already would add one more listener to the dead socket each time.
const disconnectAgain = connections.disconnect;
connections.disconnect = async function disconnectOnce(this: Connecting): Promise<unknown> {
  const { socket } = this;
  const done = await disconnectAgain.call(this);
  if (this.socket === socket) this.socket = null;
  return done;
};

// A connection that is being given up counts as connected, also when it never had a socket: a request that comes just then
// would write to null. It fails as it does when the broker is away. (isConnected itself stays as it is: connect() asks it, and
// must not open a socket that nobody closes any more.)
const failByStatus = connections.failIfNotConnected;
connections.failIfNotConnected = function failWithoutSocket(this: Connecting): void {
  if (!this.socket) throw new KafkaJSConnectionError('No socket', { broker: `${this.host}:${this.port}` });
  failByStatus.call(this);
};

// A member whom the coordinator does not know forgets its id and joins anew; where that join fails kafkajs goes back to its rounds
// of fetches. Without an id those send no heartbeat, and with all topics paused they ask the broker nothing: the member would
// stand outside its group for ever. So a heartbeat without an id fails as the coordinator's refusal does, and it joins again.
const { createErrorFromCode } = internal<{ createErrorFromCode(code: number): Error }>('protocol/error');
const UNKNOWN_MEMBER_ID = 25;
const memberships = internal<{
  prototype: { memberId: string | null; heartbeat(every: { interval: number }): Promise<void> };
}>('consumer/consumerGroup').prototype;
const heartbeatOfMember = memberships.heartbeat;
memberships.heartbeat = async function heartbeatOrJoin(this: { memberId: string | null }, every) {
  if (!this.memberId) throw createErrorFromCode(UNKNOWN_MEMBER_ID);
  return heartbeatOfMember.call(this as typeof memberships, every);
};
