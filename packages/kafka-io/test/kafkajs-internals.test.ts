/** What is replaced in kafkajs, at its own classes: a timer per connection, sockets left open, listeners piling up. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
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
  requestQueue: RequestQueue;
  connect(): Promise<boolean>;
  disconnect(): Promise<boolean>;
  failIfNotConnected(): void;
};
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const logger = { ...quiet, namespace: () => quiet };
const connectionTo = (port: number) =>
  new Connection({
    host: '127.0.0.1',
    port,
    logger,
    socketFactory: createSocketFactory(),
    requestTimeout: 600_000,
    connectionTimeout: 5_000,
  });
const queue = () =>
  new Queue({
    maxInFlightRequests: null,
    requestTimeout: 1_000,
    enforceRequestTimeout: false,
    logger: quiet,
  });

const ConsumerGroup = require('kafkajs/src/consumer/consumerGroup') as {
  prototype: { heartbeat(this: { memberId: string | null }, every: { interval: number }): Promise<void> };
};
const BrokerPool = require('kafkajs/src/cluster/brokerPool') as new (
  options: object,
) => {
  brokers: Record<string, object>;
  withBroker<T>(ask: (at: { nodeId: string }) => Promise<T>): Promise<T | null>;
};

describe('the pool of brokers', () => {
  const pool = () => {
    const made = new BrokerPool({ logger, retry: {} });
    made.brokers = { 1: { isConnected: () => true }, 2: { isConnected: () => true } };
    return made;
  };

  it('says why no broker could be asked', async () => {
    const away = new Error('the broker is away');
    await assert.rejects(
      pool().withBroker(() => Promise.reject(away)),
      away,
    );
  });

  it('asks the next broker where one is away', async () => {
    let asked = 0;
    const answer = await pool().withBroker(() =>
      asked++ === 0 ? Promise.reject(new Error('away')) : Promise.resolve('answer'),
    );
    assert.deepEqual([asked, answer], [2, 'answer']);
  });
});

describe('a member without an id', () => {
  it('is told at its next heartbeat, since nothing else would bring it back into its group', async () => {
    const { heartbeat } = ConsumerGroup.prototype;
    await assert.rejects(heartbeat.call({ memberId: null }, { interval: 1_000 }), {
      type: 'UNKNOWN_MEMBER_ID',
    });
  });
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
  /** A connection to a broker that takes requests and answers none. */
  async function connected(t: TestContext) {
    const server = createServer((socket) => socket.resume());
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    t.after(() => server.close());
    const connection = connectionTo((server.address() as AddressInfo).port);
    await connection.connect();
    const ask = (sendRequest: () => void) =>
      new Promise((resolve, reject) => {
        connection.requestQueue.push({
          entry: { apiKey: 3, apiName: 'Metadata', apiVersion: 0, correlationId: 1, resolve, reject },
          expectResponse: true,
          requestTimeout: null,
          sendRequest,
        });
      });
    return { connection, ask };
  }

  it('fails a request that was written while it was given up, and that no broker answers', async (t) => {
    const { connection, ask } = await connected(t);
    const closing = connection.disconnect();
    const answer = ask(() => connection.socket!.write('request'));
    await assert.rejects(answer, { name: 'KafkaJSConnectionClosedError' });
    await closing;
    assert.equal(connection.requestQueue.inflight.size, 0);
  });

  it('fails a request whose socket has closed instead of writing to it', async (t) => {
    const { connection, ask } = await connected(t);
    connection.socket!.destroy();
    await once(connection.socket!, 'close');
    const answer = ask(() => assert.fail('there is nothing to write to'));
    await assert.rejects(answer, { name: 'KafkaJSConnectionClosedError' });
    await connection.disconnect();
  });

  it('without a socket that is being given up lets a request fail as it does when a broker is away', async () => {
    const connection = connectionTo(1);
    const closing = connection.disconnect();
    assert.throws(() => connection.failIfNotConnected(), { name: 'KafkaJSConnectionError' });
    await closing;
  });

  it('stays when the socket before it ends or breaks', async (t) => {
    const peers: Socket[] = [];
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      peers.push(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const connection = connectionTo((server.address() as AddressInfo).port);
    t.after(async () => {
      await connection.disconnect();
      for (const peer of peers) peer.destroy();
      server.close();
    });
    const opened = async (): Promise<Socket> => {
      const accepted = once(server, 'connection');
      await connection.connect();
      await accepted;
      return connection.socket!;
    };
    const [ends, breaks] = [await opened(), await connection.disconnect().then(opened)];
    await connection.disconnect();
    const present = await opened();
    const closed = [once(ends, 'end'), new Promise((resolve) => breaks.once('close', resolve))];
    peers[0]!.end();
    breaks.destroy(new Error('reset'));
    await Promise.all(closed);
    await new Promise(setImmediate);
    assert.equal(connection.socket, present);
    assert.equal(present.writableEnded, false);
    assert.doesNotThrow(() => connection.failIfNotConnected());
  });

  it('is opened once by callers that come together, and closing it twice leaves nothing behind', async () => {
    let accepted = 0;
    const server = createServer((socket) => {
      accepted++;
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const connection = connectionTo(port);
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
