/** Fetch, version 4, at read_committed, with the answer left as raw record sets. https://kafka.apache.org/protocol.html#The_Messages_Fetch */
import { call } from '../brokers.ts';
import type { Broker } from '../kafkajs-internals.ts';
import type { AbortedTransaction } from './record-batch.ts';
import { WireReader, WireWriter } from './wire.ts';

export interface FetchWish {
  topic: string;
  partition: number;
  offset: number;
  maxBytes: number;
}
export interface FetchAnswer {
  topic: string;
  partition: number;
  errorCode: number;
  highWatermark: number;
  lastStableOffset: number;
  aborted: AbortedTransaction[];
  /** The record set, a view of the answer's bytes. */
  set: Buffer;
}

const READ_COMMITTED = 1;
const ANSWER_MARGIN_MS = 30_000;

/** @returns the answers, and the bytes that all of them are views of */
export async function fetchRecords(
  broker: Broker,
  wishes: readonly FetchWish[],
  limits: { maxWaitMs: number; maxBytes: number },
): Promise<{ answers: FetchAnswer[]; bytes: Buffer }> {
  const body = new WireWriter()
    .int32(-1)
    .int32(limits.maxWaitMs)
    .int32(1)
    .int32(limits.maxBytes)
    .int8(READ_COMMITTED);
  body.array([...Map.groupBy(wishes, (w) => w.topic)], ([topic, mine]) =>
    body.string(topic).array(mine, (w) => body.int32(w.partition).int64(w.offset).int32(w.maxBytes)),
  );
  const timeoutMs = limits.maxWaitMs + ANSWER_MARGIN_MS;
  const bytes = await call(broker, { key: 1, version: 4, name: 'Fetch', timeoutMs }, body);
  const answer = new WireReader(bytes);
  answer.int32(); // throttle time
  const answers = answer
    .array(() => {
      const topic = answer.string()!;
      return answer.array((): FetchAnswer => {
        const partition = answer.int32();
        const errorCode = answer.int16();
        const highWatermark = answer.int64();
        const lastStableOffset = answer.int64();
        const aborted = answer.array(() => ({ producerId: answer.int64(), firstOffset: answer.int64() }));
        const set = answer.bytes(Math.max(0, answer.int32()));
        return { topic, partition, errorCode, highWatermark, lastStableOffset, aborted, set };
      });
    })
    .flat();
  return { answers, bytes };
}
