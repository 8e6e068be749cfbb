/** What is replaced in kafkajs, at its own classes: a timer per connection, sockets left open, listeners piling up. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { createSocketFactory, type RequestQueue } from '../src/kafkajs-internals.ts';

const require = createRequire(import.meta.url);
const Queue = require('kafkajs/src/network/requestQueue') as new (
  options: object,
) => RequestQueue & {
  destroy(): void;
};
const Connection = require('kafkajs/src/network/connection') as new (
  options: object,
) => {
  socket: Socket | null;
  connect(): Promise<boolean>;
  disconnect(): Promise<boolean>;
  failIfNotConnected(): void;
};
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const logger = { ...quiet, namespace: () => quiet };
const queue = () =>
  new Queue({
    maxInFlightRequests: null,
    requestTimeout: 1_000,
    enforceRequestTimeout: false,
    logger: quiet,
  });

describe('the request queue', () => {
  it('sets no timer while nothing waits', () => {
    const idle = queue();
    idle.scheduleCheckPendingRequests();
    idle.checkPendingRequests();
    assert.equal(idle.throttleCheckTimeoutId, null);
  });

  it('checks again while something waits, and lets it go when the throttle ends', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000 });
    const throttled = queue();
    throttled.throttledUntil = 1_500;
    let sent = 0;
    throttled.push({
      entry: {
        apiKey: 3,
        apiName: 'Metadata',
        apiVersion: 0,
        correlationId: 1,
        resolve: () => {},
        reject: assert.fail,
      },
      expectResponse: true,
      requestTimeout: null,
      sendRequest: () => {
        sent++;
      },
    });
    t.mock.timers.tick(499);
    assert.equal(sent, 0);
    t.mock.timers.tick(2);
    assert.equal(sent, 1);
    assert.equal(throttled.throttleCheckTimeoutId, null);
    throttled.destroy();
  });
});

describe('a connection', () => {
  it('without a socket that is being given up lets a request fail as it does when a broker is away', async () => {
    const connection = new Connection({
      host: '127.0.0.1',
      port: 1,
      logger,
      socketFactory: createSocketFactory(),
      requestTimeout: 1_000,
      connectionTimeout: 5_000,
    });
    const closing = connection.disconnect();
    assert.throws(() => connection.failIfNotConnected(), { name: 'KafkaJSConnectionError' });
    await closing;
  });

  it('is opened once by callers that come together, and closing it twice leaves nothing behind', async () => {
    let accepted = 0;
    const server = createServer((socket) => {
      accepted++;
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const connection = new Connection({
      host: '127.0.0.1',
      port,
      logger,
      socketFactory: createSocketFactory(),
      requestTimeout: 1_000,
      connectionTimeout: 5_000,
    });
    await Promise.all([connection.connect(), connection.connect(), connection.connect()]);
    assert.equal(await connection.connect(), true);
    const { socket } = connection;
    await connection.disconnect();
    await connection.disconnect();
    assert.equal(connection.socket, null);
    assert.ok(socket!.listenerCount('connect') <= 1);
    await new Promise((resolve) => server.close(resolve));
    assert.equal(accepted, 1);
  });
});
