/** The requests of a transaction, with the broker's error codes kept. https://kafka.apache.org/protocol.html#protocol_api_keys */
import { call, check } from '../brokers.ts';
import type { Broker } from '../kafkajs-internals.ts';
import { WireReader, WireWriter } from './wire.ts';

export interface Producer {
  transactionalId: string;
  producerId: number;
  producerEpoch: number;
}
export interface TopicPartitions {
  topic: string;
  partitions: readonly number[];
}
export interface GroupOffset {
  topic: string;
  partition: number;
  offset: number;
  metadata: string;
}

/** A null transactionalId asks for an idempotent producer outside transactions. */
export async function initProducerId(
  coordinator: Broker,
  transactionalId: string | null,
  transactionTimeoutMs: number,
): Promise<{ producerId: number; producerEpoch: number }> {
  const body = new WireWriter().string(transactionalId).int32(transactionTimeoutMs);
  const answer = new WireReader(
    await call(coordinator, { key: 22, version: 1, name: 'InitProducerId' }, body),
  );
  answer.int32(); // throttle time
  check(answer.int16(), `to InitProducerId of ${transactionalId ?? 'an idempotent producer'}`);
  return { producerId: answer.int64(), producerEpoch: answer.int16() };
}

export async function addPartitionsToTransaction(
  coordinator: Broker,
  producer: Producer,
  topics: readonly TopicPartitions[],
): Promise<void> {
  const body = begin(producer);
  body.array(topics, ({ topic, partitions }) =>
    body.string(topic).array(partitions, (partition) => body.int32(partition)),
  );
  const answer = new WireReader(
    await call(coordinator, { key: 24, version: 1, name: 'AddPartitionsToTxn' }, body),
  );
  answer.int32(); // throttle time
  const errors = answer
    .array(() => {
      const topic = answer.string()!;
      return answer.array(() => ({ topic, partition: answer.int32(), code: answer.int16() }));
    })
    .flat()
    .filter(({ code }) => code !== 0);
  // One bad partition makes the others OPERATION_NOT_ATTEMPTED: report the one that says why.
  const cause = errors.find(({ code }) => code !== OPERATION_NOT_ATTEMPTED) ?? errors[0];
  if (cause)
    check(
      cause.code,
      `to AddPartitionsToTxn of ${producer.transactionalId}, ${cause.topic} ${cause.partition}`,
    );
}
const OPERATION_NOT_ATTEMPTED = 55;

export async function addOffsetsToTransaction(
  coordinator: Broker,
  producer: Producer,
  groupId: string,
): Promise<void> {
  const body = begin(producer).string(groupId);
  const answer = new WireReader(
    await call(coordinator, { key: 25, version: 1, name: 'AddOffsetsToTxn' }, body),
  );
  answer.int32(); // throttle time
  check(answer.int16(), `to AddOffsetsToTxn of ${producer.transactionalId}, group ${groupId}`);
}

export async function commitOffsetsInTransaction(
  groupCoordinator: Broker,
  producer: Producer,
  groupId: string,
  offsets: readonly GroupOffset[],
): Promise<void> {
  const body = new WireWriter()
    .string(producer.transactionalId)
    .string(groupId)
    .int64(producer.producerId)
    .int16(producer.producerEpoch);
  body.array([...Map.groupBy(offsets, (o) => o.topic)], ([topic, mine]) =>
    body.string(topic).array(mine, (o) => body.int32(o.partition).int64(o.offset).string(o.metadata)),
  );
  const answer = new WireReader(
    await call(groupCoordinator, { key: 28, version: 1, name: 'TxnOffsetCommit' }, body),
  );
  answer.int32(); // throttle time
  answer.array(() => {
    const topic = answer.string()!;
    answer.array(() => {
      const partition = answer.int32();
      check(answer.int16(), `to TxnOffsetCommit of ${producer.transactionalId}, ${topic} ${partition}`);
    });
  });
}

export async function endTransaction(
  coordinator: Broker,
  producer: Producer,
  commit: boolean,
): Promise<void> {
  const body = begin(producer).int8(commit ? 1 : 0);
  const answer = new WireReader(await call(coordinator, { key: 26, version: 1, name: 'EndTxn' }, body));
  answer.int32(); // throttle time
  check(answer.int16(), `to EndTxn (${commit ? 'commit' : 'abort'}) of ${producer.transactionalId}`);
}

const begin = ({ transactionalId, producerId, producerEpoch }: Producer): WireWriter =>
  new WireWriter().string(transactionalId).int64(producerId).int16(producerEpoch);
