/** Answers as they come off a socket: gathered whatever the chunks are, in memory that is used again once it is given back. */
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SharedMemory } from '../src/fetched.ts';
import { giveBack, Incoming, openSocket } from '../src/receiving.ts';

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
