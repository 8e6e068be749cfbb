/** Answers as they come off a socket: gathered whatever the chunks are, in memory that is used again once it is given back. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { SharedMemory } from '../src/fetched.ts';
import type { RequestQueue } from '../src/kafkajs-internals.ts';
import { giveBack, Incoming, openSocket } from '../src/receiving.ts';

const Connection = createRequire(import.meta.url)('kafkajs/src/network/connection') as new (
  options: object,
) => {
  socket: Socket;
  requestQueue: RequestQueue;
  connect(): Promise<boolean>;
  disconnect(): Promise<boolean>;
  sendAuthRequest(login: {
    request: { encode(): Promise<Buffer> };
    response: { decode(raw: Buffer): Promise<Buffer>; parse(decoded: Buffer): Promise<Buffer> };
  }): Promise<Buffer>;
};

const framed = (answer: Buffer): Buffer => {
  const size = Buffer.alloc(4);
  size.writeInt32BE(answer.length);
  return Buffer.concat([size, answer]);
};

/** What `incoming` takes is written over at once, as the buffer of a socket is. */
function takeInChunks(incoming: Incoming, stream: Buffer, lengths: readonly number[]): void {
  const reused = Buffer.alloc(1 << 20);
  let at = 0;
  for (let i = 0; at < stream.length; i++) {
    const length = Math.min(lengths[i % lengths.length]!, stream.length - at);
    stream.copy(reused, 0, at, at + length);
    incoming.take(reused.subarray(0, length));
    reused.fill(0xee, 0, length);
    at += length;
  }
}

describe('answers', () => {
  it('come whole and in order, however the stream was cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 4, maxLength: 300 }), { minLength: 1 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }),
        (answers, lengths) => {
          const got: string[] = [];
          const incoming = new Incoming((answer) => got.push(answer.toString('hex')));
          takeInChunks(incoming, Buffer.concat(answers.map((a) => framed(Buffer.from(a)))), lengths);
          assert.deepEqual(
            got,
            answers.map((a) => Buffer.from(a).toString('hex')),
          );
        },
      ),
    );
  });

  it('lie in memory of their own until they are given back, and then in the same', () => {
    const got: Buffer[] = [];
    const incoming = new Incoming((answer) => got.push(answer));
    const stream = (fill: number): Buffer => framed(Buffer.alloc(200_000, fill));
    takeInChunks(incoming, Buffer.concat([stream(1), stream(2)]), [65_536]);
    giveBack(got[0]!);
    takeInChunks(incoming, Buffer.concat([stream(3), stream(4)]), [1_000]);
    assert.equal(got[2]!.buffer, got[0]!.buffer);
    const ofOwn = [got[1]!, got[2]!, got[3]!];
    assert.equal(new Set(ofOwn.map((answer) => answer.buffer)).size, 3);
    assert.deepEqual(
      ofOwn.map((answer) => [answer.length, answer.every((byte) => byte === answer[0]), answer[0]]),
      [
        [200_000, true, 2],
        [200_000, true, 3],
        [200_000, true, 4],
      ],
    );
  });

  it('whose length no broker would send end the connection', () => {
    const incoming = new Incoming(() => assert.fail('there is no answer'));
    assert.throws(() => incoming.take(Buffer.from('HTTP/1.1 400 Bad Request')), /another service/);
    const negative = new Incoming(() => assert.fail('there is no answer'));
    assert.throws(() => negative.take(Buffer.alloc(8, 0xff)), /-1 bytes/);
  });
});

describe('memory that several parts of an answer share', () => {
  it('is used again only when the last of them has let go', () => {
    const got: Buffer[] = [];
    const incoming = new Incoming((answer) => got.push(answer));
    const next = (): Buffer => {
      takeInChunks(incoming, framed(Buffer.alloc(150_000)), [150_004]);
      return got.at(-1)!;
    };
    const first = next();
    const memory = new SharedMemory(first);
    const parts = [memory.held(), memory.held()];
    memory.release();
    parts[0]!.release();
    assert.notEqual(next().buffer, first.buffer);
    parts[1]!.release();
    assert.equal(next().buffer, first.buffer);
  });
});

describe('a plain socket', () => {
  it('gives everything, and its end', async () => {
    const sent = Buffer.alloc(3_000_000, 7);
    const server = createServer((socket: Socket) => socket.end(sent));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    let received = 0;
    let isRight = true;
    await new Promise<void>((resolve, reject) => {
      const socket = openSocket({ host: '127.0.0.1', port, ssl: undefined as never, onConnect: () => {} });
      socket.on('data', (bytes: Buffer) => {
        received += bytes.length;
        isRight &&= bytes.every((byte) => byte === 7);
      });
      socket.on('end', () => {
        socket.end();
        resolve();
      });
      socket.on('error', reject);
    });
    server.close();
    assert.equal(received, sent.length);
    assert.ok(isRight);
  });
});

describe('a connection that is given up and opened anew', () => {
  /** A connection and the broker's ends of its sockets, which stay open when the other side ends. */
  async function connected(t: TestContext) {
    const brokerEnds: Socket[] = [];
    const server = createServer({ allowHalfOpen: true }, (socket) => brokerEnds.push(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const connection = new Connection({
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      logger: { ...quiet, namespace: () => quiet },
      socketFactory: openSocket,
      requestTimeout: 600_000,
      connectionTimeout: 5_000,
    });
    t.after(async () => {
      for (const socket of brokerEnds) socket.destroy();
      server.close();
      await connection.disconnect();
    });
    return {
      connection,
      async open(): Promise<{ broker: Socket; socket: Socket }> {
        const accepted = once(server, 'connection');
        await connection.connect();
        await accepted;
        return { broker: brokerEnds.at(-1)!, socket: connection.socket };
      },
      ask: (correlationId: number) =>
        new Promise<Buffer>((resolve, reject) => {
          const taken = ({ payload }: { payload: Buffer }) => resolve(payload);
          connection.requestQueue.push({
            entry: { apiKey: 3, apiName: 'Metadata', apiVersion: 0, correlationId, resolve: taken, reject },
            expectResponse: true,
            requestTimeout: null,
            sendRequest: () => {},
          });
        }),
    };
  }
  const answerTo = (correlationId: number, text: string): Buffer => {
    const answer = Buffer.alloc(4 + text.length);
    answer.writeInt32BE(correlationId);
    answer.write(text, 4);
    return framed(answer);
  };
  async function bring(bytes: Buffer, { broker, socket }: { broker: Socket; socket: Socket }): Promise<void> {
    const received = once(socket, 'data');
    broker.write(bytes);
    await received;
  }

  it('keeps apart what the old socket still brings', async (t) => {
    const { connection, open, ask } = await connected(t);
    const old = await open();
    const late = answerTo(1, 'nobody waits for it any more');
    await bring(late.subarray(0, 10), old);
    await connection.disconnect();
    const present = await open();
    const asked = ask(2);
    const answer = answerTo(2, 'the answer');
    await bring(answer.subarray(0, 10), present);
    await bring(late.subarray(10), old);
    present.broker.write(answer.subarray(10));
    assert.equal(String(await asked), 'the answer');
  });

  it('takes the answer to a request that was written just before', async (t) => {
    const { connection, open, ask } = await connected(t);
    const { broker } = await open();
    const closing = connection.disconnect();
    const asked = ask(1);
    await closing;
    broker.end(answerTo(1, 'the answer'));
    assert.equal(String(await asked), 'the answer');
  });

  it('begins its login anew', async (t) => {
    const { connection, open } = await connected(t);
    const login = () =>
      connection.sendAuthRequest({
        request: { encode: async () => Buffer.from('who I am') },
        response: { decode: async (raw) => raw, parse: async (raw) => raw },
      });
    const answer = framed(Buffer.from('welcome'));
    const old = await open();
    const broken = login();
    await bring(answer.subarray(0, 2), old);
    old.broker.end();
    await assert.rejects(broken, { name: 'KafkaJSConnectionError' });
    await connection.disconnect();
    const present = await open();
    const welcome = login();
    await bring(answer, present);
    assert.deepEqual(await welcome, answer);
  });
});
