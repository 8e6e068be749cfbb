/**
 * Produce, acks = all, version 7, or 12, which adds its partitions to the transaction (KIP-890). The batches go to the
 * socket as they are: kafkajs' own encoder would copy each byte four times, which is most of what producing costs.
 * https://kafka.apache.org/protocol.html#The_Messages_Produce
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

const API_KEY = 0;
const VERSION = 7;
/** Also the first that is flexible (KIP-482) of those used here. */
const ADDS_PARTITIONS = 12;
const ALL_REPLICAS = -1;
export const PRODUCE_TIMEOUT_MS = 30_000;
/** kafkajs keeps this connection for everything but Fetch; requests on it are answered in order. */
const CONTROL_CONNECTION = 0;

/**
 * Sends at most one batch for each partition; the broker refuses more.
 * @param addsPartitions the broker adds the partitions to the transaction, where its transaction.version is at least 2
 */
export async function produceBatches(
  broker: Broker,
  transactionalId: string | null,
  batches: readonly SealedBatch[],
  addsPartitions = false,
): Promise<ProduceAnswer[]> {
  const connection = await broker.connectionPool.getConnection(CONTROL_CONNECTION);
  if (broker.connectionPool.sasl && !connection.isAuthenticated()) await connection.authenticate();
  const correlationId = connection.nextCorrelationId();
  const apiVersion = addsPartitions ? ADDS_PARTITIONS : VERSION;
  const head = new WireWriter(256)
    .int16(API_KEY)
    .int16(apiVersion)
    .int32(correlationId)
    .string(connection.clientId);
  const byTopic = Map.groupBy(batches, (b) => b.topic);
  const chunks = addsPartitions
    ? flexibleBody(head, transactionalId!, byTopic)
    : body(head, transactionalId, byTopic);
  const answer = new WireReader(await write(connection, { apiVersion, correlationId }, chunks));
  return addsPartitions ? flexibleAnswers(answer) : answers(answer);
}

type ByTopic = ReadonlyMap<string, readonly SealedBatch[]>;

function body(head: WireWriter, transactionalId: string | null, byTopic: ByTopic): Buffer[] {
  const chunks: Buffer[] = [];
  let part = head.string(transactionalId).int16(ALL_REPLICAS).int32(PRODUCE_TIMEOUT_MS).int32(byTopic.size);
  for (const [topic, mine] of byTopic) {
    part.string(topic).int32(mine.length);
    for (const batch of mine) {
      chunks.push(part.int32(batch.partition).int32(batch.bytes.length).bytes(), batch.bytes);
      part = new WireWriter(64);
    }
  }
  return chunks;
}

function flexibleBody(head: WireWriter, transactionalId: string, byTopic: ByTopic): Buffer[] {
  const chunks: Buffer[] = [];
  let part = head
    .uvarint(0) // header of a flexible version: no tags
    .compactString(transactionalId)
    .int16(ALL_REPLICAS)
    .int32(PRODUCE_TIMEOUT_MS)
    .uvarint(byTopic.size + 1);
  for (const [topic, mine] of byTopic) {
    part.compactString(topic).uvarint(mine.length + 1);
    for (const batch of mine) {
      chunks.push(
        part
          .int32(batch.partition)
          .uvarint(batch.bytes.length + 1)
          .bytes(),
        batch.bytes,
      );
      part = new WireWriter(64).uvarint(0); // no tags of the partition
    }
    part.uvarint(0); // nor of the topic
  }
  chunks.push(part.uvarint(0).bytes());
  return chunks;
}

function answers(answer: WireReader): ProduceAnswer[] {
  return answer
    .array(() => {
      const topic = answer.string()!;
      return answer.array(() => partitionAnswer(answer, topic));
    })
    .flat();
}

function flexibleAnswers(answer: WireReader): ProduceAnswer[] {
  answer.skipTags();
  return answer
    .compactArray(() => {
      const topic = answer.compactString()!;
      const mine = answer.compactArray(() => {
        const of = partitionAnswer(answer, topic);
        answer.compactArray(() => {
          answer.int32(); // index of a record that was refused
          answer.compactString();
          answer.skipTags();
        });
        answer.compactString(); // error message
        answer.skipTags();
        return of;
      });
      answer.skipTags();
      return mine;
    })
    .flat();
}

function partitionAnswer(answer: WireReader, topic: string): ProduceAnswer {
  const partition = answer.int32();
  const errorCode = answer.int16();
  const baseOffset = answer.int64();
  answer.int64(); // log append time
  answer.int64(); // log start offset
  return { topic, partition, errorCode, baseOffset };
}

async function write(
  connection: Connection,
  { apiVersion, correlationId }: { apiVersion: number; correlationId: number },
  chunks: readonly Buffer[],
): Promise<Buffer> {
  const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) => {
    connection.failIfNotConnected();
    connection.requestQueue.push({
      entry: {
        apiKey: API_KEY,
        apiName: 'Produce',
        apiVersion,
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
