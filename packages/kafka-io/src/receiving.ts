/**
 * How answers come off a socket. kafkajs keeps every chunk that the socket gives and puts them together at the end, each
 * time in new memory: of a log read at full speed that is most of the garbage of a process. Here a plain socket reads
 * into one buffer that all share, an answer is gathered where its length says that it fits, and the memory of large ones
 * is used again once `giveBack` was told that nobody looks at them.
 */
import { connect, type Socket } from 'node:net';
import type { ISocketFactory } from 'kafkajs';
import { KafkaIoError } from './errors.ts';
import { createSocketFactory, internal } from './kafkajs-internals.ts';

const READ_BYTES = 256 << 10;
const KEEP_ALIVE_MS = 60_000;
const SIZE_BYTES = 4;
const CORRELATION_BYTES = 4;
/** Smaller answers are left to the garbage collector. */
const SMALLEST_KEPT_BYTES = 64 << 10;
const MAX_SPARES = 6;
/** A spare that is larger by more than this would be wasted on the answer. */
const MOST_TIMES_LARGER = 8;
/** Whatever says that it sends more is no broker: the first four letters of an HTTP answer are 1.2 GB. */
const LARGEST_ANSWER_BYTES = 1 << 30;

let shared: Buffer | undefined;
const encrypted = createSocketFactory();

/** As kafkajs' own, but what `data` gives is valid only until its listeners return. TLS has buffers of its own. */
export const openSocket: ISocketFactory = (to) => {
  if (to.ssl) return encrypted(to);
  shared ??= Buffer.allocUnsafeSlow(READ_BYTES);
  const onread = {
    buffer: shared,
    callback: (length: number, bytes: Uint8Array): boolean => {
      socket.emit('data', Buffer.from(bytes.buffer, bytes.byteOffset, length));
      return true;
    },
  };
  const socket: Socket = connect({ host: to.host, port: to.port, onread }, to.onConnect);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  return socket;
};

const spares: Buffer[] = [];
const reusable = new WeakSet<ArrayBufferLike>();

function memoryFor(length: number): Buffer {
  if (length < SMALLEST_KEPT_BYTES) return Buffer.allocUnsafe(length);
  const fitting = spares.findIndex((b) => b.length >= length && b.length <= length * MOST_TIMES_LARGER);
  if (fitting >= 0) return spares.splice(fitting, 1)[0]!;
  let capacity = SMALLEST_KEPT_BYTES;
  while (capacity < length) capacity += Math.max(SMALLEST_KEPT_BYTES, capacity >> 2);
  const memory = Buffer.allocUnsafeSlow(capacity);
  reusable.add(memory.buffer);
  return memory;
}

/** Nobody looks at this answer any more. To be told once. @param answer as a request resolved to it */
export function giveBack({ buffer }: Buffer): void {
  if (spares.length < MAX_SPARES && reusable.has(buffer)) spares.push(Buffer.from(buffer));
}

/** Puts the answers of one socket together. */
export class Incoming {
  readonly #onAnswer: (answer: Buffer) => void;
  readonly #size = Buffer.alloc(SIZE_BYTES);
  #sizeRead = 0;
  #answer: Buffer | null = null;
  #length = 0;
  #read = 0;

  /** @param onAnswer gets what follows the length of each answer, in memory of its own */
  constructor(onAnswer: (answer: Buffer) => void) {
    this.#onAnswer = onAnswer;
  }

  /** Takes what came; none of it is looked at later. @throws KafkaIoError where the other side is no broker */
  take(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (!this.#answer) {
        this.#size[this.#sizeRead++] = bytes[at++]!;
        if (this.#sizeRead < SIZE_BYTES) continue;
        this.#length = this.#size.readInt32BE(0);
        if (this.#length < CORRELATION_BYTES || this.#length > LARGEST_ANSWER_BYTES)
          throw new KafkaIoError(
            `Expected an answer of a Kafka broker, got one that says it has ${this.#length} bytes: does another service listen there?`,
          );
        this.#answer = memoryFor(this.#length);
        this.#read = 0;
      }
      const count = Math.min(bytes.length - at, this.#length - this.#read);
      bytes.copy(this.#answer, this.#read, at, at + count);
      at += count;
      this.#read += count;
      if (this.#read < this.#length) return;
      const answer = this.#answer.subarray(0, this.#length);
      this.#answer = null;
      this.#sizeRead = 0;
      this.#onAnswer(answer);
    }
  }
}

interface Receiving {
  socket: Socket | null;
  authHandlers: unknown;
  requestQueue: { fulfillRequest(answer: { size: number; correlationId: number; payload: Buffer }): void };
  connect(): Promise<unknown>;
  processData(bytes: Buffer): void;
}
const connections = internal<{ prototype: Receiving }>('network/connection').prototype;
const connectOnce = connections.connect;
connections.connect = function connectAndReceive(this: Receiving): Promise<unknown> {
  const before = this.socket;
  const attempt = connectOnce.call(this);
  const { socket } = this;
  if (socket && socket !== before) receiveFrom(socket, this);
  return attempt;
};

/** A socket that was given up may bring answers while the next one is open: each has a framing of its own. */
function receiveFrom(socket: Socket, connection: Receiving): void {
  const answers = new Incoming((answer) =>
    connection.requestQueue.fulfillRequest({
      size: answer.length,
      correlationId: answer.readInt32BE(0),
      payload: answer.subarray(CORRELATION_BYTES),
    }),
  );
  // The framing of kafkajs is for logins alone. What a broken socket brought of one is not continued on this one.
  Object.assign(connection, { chunks: [], bytesBuffered: 0, bytesNeeded: SIZE_BYTES });
  socket.removeAllListeners('data');
  socket.on('data', (bytes: Buffer) => {
    // The answers of a login have a framing of their own, and kafkajs keeps their chunks.
    if (connection.authHandlers && connection.socket === socket) {
      connection.processData(Buffer.from(bytes));
      return;
    }
    try {
      answers.take(bytes);
    } catch (error) {
      // kafkajs hears of it as of a broken connection.
      socket.destroy(error as Error);
    }
  });
}
