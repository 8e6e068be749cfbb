/** Producing and reading through kafka-io, beside plain kafkajs on the same broker and values; microseconds of client CPU. */
import { connectKafka, type RawOutRecord } from '@onemall/kafka-io';
import { startTestStack, waitFor } from '@onemall/testkit';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { load, measure, versions } from './report/machine.ts';
import { type Benchmark, median } from './report/result.ts';

const ROUNDS = 5;
const RECORDS = 100_000;
const BATCH = 2_000;
const FIGURES = [
  'produceOurs',
  'produceKafkajs',
  'transactOurs',
  'transactKafkajs',
  'readOurs',
  'readKafkajs',
] as const;

const benchmark: Benchmark = async (print) => {
  const stack = await startTestStack();
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  const kafka = new Kafka({ clientId: 'plain', brokers: [stack.brokers], logLevel: logLevel.NOTHING });
  const producer = kafka.producer({
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  try {
    await io.createTopics(['clicks', 'buys', 'exposures', 'items'], {
      retention: { largestWindowMs: 1_000, graceMs: 0, longestOutageMs: 0 },
    });
    await producer.connect();
    const writer = await io.openWriter();
    const ourTransactions = await io.openTransactionalWriter(`${namespace}-ours`);
    await ourTransactions.init();
    const plainTransactions = kafka.producer({
      transactionalId: `${namespace}-plain`,
      idempotent: true,
      maxInFlightRequests: 1,
      retry: { initialRetryTime: 10 }, // its default of 300 ms makes every transaction wait for the one before
      createPartitioner: Partitioners.DefaultPartitioner,
    });
    await plainTransactions.connect();
    const value = Buffer.alloc(300, 7);
    const keys = Array.from({ length: BATCH }, (_, i) => `user-${i}`);
    const rounds: Record<(typeof FIGURES)[number] | 'load', number>[] = [];
    const perRecord = async (work: () => Promise<void>): Promise<number> =>
      ((await measure(work)).cpuSeconds * 1e6) / RECORDS;

    for (let round = 0; round <= ROUNDS; round++) {
      const produceOurs = await perRecord(async () => {
        const records: RawOutRecord[] = keys.map((key) => ({ topic: 'clicks', key, valueBytes: value }));
        for (let sent = 0; sent < RECORDS; sent += BATCH) await writer.send(records);
      });
      const produceKafkajs = await perRecord(async () => {
        const messages = keys.map((key) => ({ key, value }));
        for (let sent = 0; sent < RECORDS; sent += BATCH)
          await producer.send({ topic: `${namespace}.buys`, messages, acks: -1 });
      });
      const offset = String(round);
      const transactOurs = await perRecord(async () => {
        const records: RawOutRecord[] = keys.map((key) => ({ topic: 'exposures', key, valueBytes: value }));
        const positions = [{ topic: 'items' as const, partition: 0, offset: round }];
        for (let sent = 0; sent < RECORDS; sent += BATCH)
          await ourTransactions.commit({ records, offsets: { groupId: `${namespace}-ours`, positions } });
      });
      const transactKafkajs = await perRecord(async () => {
        const messages = keys.map((key) => ({ key, value }));
        const topics = [{ topic: `${namespace}.items`, partitions: [{ partition: 0, offset }] }];
        for (let sent = 0; sent < RECORDS; sent += BATCH) {
          const transaction = await plainTransactions.transaction();
          await transaction.send({ topic: `${namespace}.exposures`, messages, acks: -1 });
          await transaction.sendOffsets({ consumerGroupId: `${namespace}-plain`, topics });
          await transaction.commit();
        }
      });
      const total = RECORDS * (round + 1);
      const readOurs = await perRecord(() => readWithOurs(io, total - RECORDS, total));
      const readKafkajs = await perRecord(() =>
        readWithKafkajs(kafka, `${namespace}.buys`, `g${round}`, total),
      );
      if (round === 0) continue; // warms up
      // kafkajs reads from the beginning: per record read, not per record of the round
      rounds.push({
        produceOurs,
        produceKafkajs,
        transactOurs,
        transactKafkajs,
        readOurs,
        readKafkajs: (readKafkajs * RECORDS) / total,
        load: load(),
      });
      print(`round ${round}: ${JSON.stringify(rounds.at(-1))}`);
    }
    await writer.close();
    await ourTransactions.close();
    await plainTransactions.disconnect();
    const middle = (name: (typeof FIGURES)[number]): number => median(rounds.map((r) => r[name]));
    return {
      name: 'kafka-io',
      versions: { ...versions(), kafkajs: '2.2.4' },
      ours: {
        produceCpuUs: middle('produceOurs'),
        transactCpuUs: middle('transactOurs'),
        readCpuUs: middle('readOurs'),
        rounds,
      },
      peer: {
        name: 'plain kafkajs',
        produceCpuUs: middle('produceKafkajs'),
        transactCpuUs: middle('transactKafkajs'),
        readCpuUs: middle('readKafkajs'),
      },
      ratios: {
        'produce CPU, kafkajs to ours': middle('produceKafkajs') / middle('produceOurs'),
        'transaction CPU, kafkajs to ours': middle('transactKafkajs') / middle('transactOurs'),
        'read CPU, kafkajs to ours': middle('readKafkajs') / middle('readOurs'),
      },
      bars: [],
    };
  } finally {
    await producer.disconnect();
    await io.close();
    await stack.stop();
  }
};

async function readWithOurs(
  io: Awaited<ReturnType<typeof connectKafka>>,
  from: number,
  to: number,
): Promise<void> {
  const reader = await io.openReader();
  const ends = await io.endOffsets('clicks');
  // Keys spread unevenly, so the positions are shares of each partition's end.
  await reader.assign(ends.map((end) => ({ ...end, offset: Math.floor((end.offset * from) / to) })));
  let left = ends.reduce((sum, end) => sum + end.offset - Math.floor((end.offset * from) / to), 0);
  let bytes = 0;
  while (left > 0)
    for (const part of await reader.poll({ maxWaitMs: 500 }))
      for (const record of part.records) {
        bytes += record.value?.length ?? 0;
        left--;
      }
  await reader.close();
  if (bytes === 0) throw new Error('Nothing was read');
}

async function readWithKafkajs(kafka: Kafka, topic: string, groupId: string, count: number): Promise<void> {
  const consumer = kafka.consumer({ groupId });
  let seen = 0;
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const message of batch.messages) if (message.value) seen++;
    },
  });
  await waitFor(() => seen >= count, { what: `${count} records read by kafkajs`, timeoutMs: 120_000 });
  await consumer.disconnect();
}

export default benchmark;
