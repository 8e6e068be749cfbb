/** Loses answers of the real broker: the request is carried out, or not even sent, and the connection breaks. */
import { createRequire } from 'node:module';

interface Request {
  entry: { apiKey: number; resolve(answer: unknown): void; reject(error: Error): void };
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
