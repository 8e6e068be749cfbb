/**
 * Produce, version 7, acks = all. The batches go to the socket as they are: kafkajs' own encoder would copy each byte
 * four times, which is most of what producing costs. https://kafka.apache.org/protocol.html#The_Messages_Produce
 */
import type { Broker, Connection } from '../kafkajs-internals.ts';
import { WireReader, WireWriter } from './wire.ts';

export interface SealedBatch {
  topic: string;
  partition: number;
  bytes: Buffer;
}
export interface ProduceAnswer {
  topic: string;
  partition: number;
  errorCode: number;
  baseOffset: number;
}

const API = { key: 0, version: 7 } as const;
const ALL_REPLICAS = -1;
export const PRODUCE_TIMEOUT_MS = 30_000;
/** kafkajs keeps this connection for everything but Fetch; requests on it are answered in order. */
const CONTROL_CONNECTION = 0;

/** Sends at most one batch for each partition; the broker refuses more. */
export async function produceBatches(
  broker: Broker,
  transactionalId: string | null,
  batches: readonly SealedBatch[],
): Promise<ProduceAnswer[]> {
  const connection = await broker.connectionPool.getConnection(CONTROL_CONNECTION);
  if (broker.connectionPool.sasl && !connection.isAuthenticated()) await connection.authenticate();
  const correlationId = connection.nextCorrelationId();
  const byTopic = Map.groupBy(batches, (b) => b.topic);
  const chunks: Buffer[] = [];
  let head = new WireWriter(256)
    .int16(API.key)
    .int16(API.version)
    .int32(correlationId)
    .string(connection.clientId)
    .string(transactionalId)
    .int16(ALL_REPLICAS)
    .int32(PRODUCE_TIMEOUT_MS)
    .int32(byTopic.size);
  for (const [topic, mine] of byTopic) {
    head.string(topic).int32(mine.length);
    for (const batch of mine) {
      chunks.push(head.int32(batch.partition).int32(batch.bytes.length).bytes(), batch.bytes);
      head = new WireWriter(64);
    }
  }
  const answer = new WireReader(await write(connection, correlationId, chunks));
  return answer
    .array(() => {
      const topic = answer.string()!;
      return answer.array((): ProduceAnswer => {
        const partition = answer.int32();
        const errorCode = answer.int16();
        const baseOffset = answer.int64();
        answer.int64(); // log append time
        answer.int64(); // log start offset
        return { topic, partition, errorCode, baseOffset };
      });
    })
    .flat();
}

async function write(
  connection: Connection,
  correlationId: number,
  chunks: readonly Buffer[],
): Promise<Buffer> {
  const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) => {
    connection.failIfNotConnected();
    connection.requestQueue.push({
      entry: {
        apiKey: API.key,
        apiName: 'Produce',
        apiVersion: API.version,
        correlationId,
        resolve,
        reject,
      },
      expectResponse: true,
      requestTimeout: PRODUCE_TIMEOUT_MS,
      sendRequest: () => {
        const size = Buffer.allocUnsafe(4);
        size.writeInt32BE(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
        const { socket } = connection;
        socket.cork();
        socket.write(size);
        for (const chunk of chunks) socket.write(chunk);
        socket.uncork();
      },
    });
  });
  return payload;
}
