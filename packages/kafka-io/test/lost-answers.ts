/** Loses answers of the real broker: the request is carried out, or not even sent, and the connection breaks. */
import { createRequire } from 'node:module';

interface Request {
  entry: { apiKey: number; apiVersion: number; resolve(answer: unknown): void; reject(error: Error): void };
  sendRequest(): void;
}
const require = createRequire(import.meta.url);
const queue = (require('kafkajs/src/network/requestQueue') as { prototype: { push(request: Request): void } })
  .prototype;
const { KafkaJSConnectionClosedError } = require('kafkajs/src/errors') as {
  KafkaJSConnectionClosedError: new (message: string, at: { host: string; port: number }) => Error;
};
export const API = {
  produce: 0,
  joinGroup: 11,
  addPartitionsToTxn: 24,
  addOffsetsToTxn: 25,
  endTxn: 26,
  txnOffsetCommit: 28,
};

/**
 * The next `count` requests of this kind, in this whole process, get no answer.
 * @param carriedOut whether the broker still receives them
 * @returns how many were hit so far, and an end to it
 */
export function loseAnswers(
  apiKey: number,
  { count, carriedOut }: { count: number; carriedOut: boolean },
): { hits(): number; restore(): void } {
  const push = queue.push;
  let hits = 0;
  queue.push = function loseAnswer(this: object, request: Request): void {
    if (request.entry.apiKey !== apiKey || hits >= count) {
      push.call(this, request);
      return;
    }
    hits++;
    const { reject } = request.entry;
    const lost = () =>
      reject(new KafkaJSConnectionClosedError('Closed connection', { host: '127.0.0.1', port: 1 }));
    if (!carriedOut) lost();
    else push.call(this, { ...request, entry: { ...request.entry, resolve: lost } });
  };
  return {
    hits: () => hits,
    restore: () => {
      queue.push = push;
    },
  };
}

/** Requests of these kinds that leave from now on, in the whole process. */
export function watchRequests(kinds: readonly number[]): {
  apiKeys(): number[];
  /** Sends the n-th of them once more, byte for byte. @returns the answer after the correlation id */
  repeat(index: number): Promise<Buffer>;
  restore(): void;
} {
  const push = queue.push;
  const seen: { of: object; request: Request }[] = [];
  queue.push = function watch(this: object, request: Request): void {
    if (kinds.includes(request.entry.apiKey)) seen.push({ of: this, request });
    push.call(this, request);
  };
  return {
    apiKeys: () => seen.map(({ request }) => request.entry.apiKey),
    repeat: async (index) => {
      const { of, request } = seen[index]!;
      const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) =>
        push.call(of, {
          ...request,
          entry: { ...request.entry, resolve: resolve as (answer: unknown) => void, reject },
        }),
      );
      return payload;
    },
    restore: () => {
      queue.push = push;
    },
  };
}

/** The next `count` requests of a kind and at least this version are carried out and then answered with these bytes. */
function answerInstead(apiKey: number, minVersion: number, payload: Buffer, count: number) {
  const push = queue.push;
  let left = count;
  queue.push = function putInstead(this: object, request: Request): void {
    const { entry } = request;
    if (entry.apiKey !== apiKey || entry.apiVersion < minVersion || left-- <= 0) {
      push.call(this, request);
      return;
    }
    const resolve = (answer: unknown) => entry.resolve({ ...(answer as object), payload });
    push.call(this, { ...request, entry: { ...entry, resolve } });
  };
  return {
    restore: () => {
      queue.push = push;
    },
  };
}

const API_VERSIONS = 18;
const UNSUPPORTED_VERSION = Buffer.from([0, 35, 0, 0, 0, 0]);
/** The broker answers as one that is older than features and does not say which version transactions have. */
export const asOldBroker = () =>
  answerInstead(API_VERSIONS, 3, UNSUPPORTED_VERSION, Number.POSITIVE_INFINITY);

// No tags, no throttling, one topic "t" with one partition 0, each without tags.
const ABORTABLE = Buffer.from([0, 0, 0, 0, 0, 2, 2, 0x74, 2, 0, 0, 0, 0, 0, 120, 0, 0, 0]);
/** One TxnOffsetCommit is answered with TRANSACTION_ABORTABLE. */
export const askForAbort = () => answerInstead(API.txnOffsetCommit, 5, ABORTABLE, 1);
