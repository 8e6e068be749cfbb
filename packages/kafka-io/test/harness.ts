/** One broker and registry for a test file, a fresh namespace for each test, and plain kafkajs as the slow twin. */
import { randomUUID } from 'node:crypto';
import type { Click, Item, TopicName } from '@onemall/contracts';
import { physicalTopic } from '@onemall/contracts';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { type Admin, Kafka, logLevel, Partitioners, type Producer } from 'kafkajs';
import { Brokers } from '../src/brokers.ts';
import {
  connectKafka,
  type KafkaIo,
  type KafkaIoOptions,
  type LogReader,
  type RawRecord,
} from '../src/index.ts';
import { LogWriter } from '../src/log-writer.ts';

export const RETENTION = { largestWindowMs: 10_000, graceMs: 1_000, longestOutageMs: 1_000 };
const WAIT_MS = 60_000;

export class Bench {
  readonly stack: TestStack;
  readonly twin: Kafka;
  readonly admin: Admin;
  readonly #closers: (() => Promise<void>)[] = [];

  private constructor(stack: TestStack) {
    this.stack = stack;
    this.twin = new Kafka({
      clientId: 'slow-twin',
      brokers: [stack.brokers],
      logLevel: logLevel.NOTHING,
      retry: { initialRetryTime: 20, retries: 20 },
    });
    this.admin = this.twin.admin();
  }

  static async start(): Promise<Bench> {
    const bench = new Bench(await startTestStack());
    await bench.admin.connect();
    return bench;
  }

  /** A namespace of its own with these topics. */
  async space(
    topics: readonly TopicName[],
    options: Partial<KafkaIoOptions> & { numPartitions?: number } = {},
  ) {
    const { numPartitions = 1, ...more } = options;
    const namespace = this.stack.newNamespace();
    const io = await this.connect({ namespace, ...more });
    await io.createTopics(topics, { retention: RETENTION, numPartitions });
    return { namespace, io, physical: (t: TopicName) => physicalTopic(namespace, t) };
  }

  async connect(options: Partial<KafkaIoOptions> & { namespace: string }): Promise<KafkaIo> {
    const io = await connectKafka({
      brokers: this.stack.brokers,
      registryUrl: this.stack.registryUrl,
      clientId: 'conformance',
      onLog: () => {},
      ...options,
    });
    this.onStop(() => io.close());
    return io;
  }

  async producer(options: { transactionalId?: string } = {}): Promise<Producer> {
    const producer = this.twin.producer({
      createPartitioner: Partitioners.DefaultPartitioner,
      idempotent: true,
      maxInFlightRequests: 1,
      ...options,
    });
    await producer.connect();
    this.onStop(() => producer.disconnect());
    return producer;
  }

  /** Takes a member out of its group, as its coordinator does when it hears no heartbeat. */
  async expel(groupId: string, memberId: string): Promise<void> {
    const log = new LogWriter(
      () => {},
      () => 0,
    );
    const brokers = new Brokers({ brokers: this.stack.brokers, access: {}, clientId: 'operator', log });
    await brokers.connect();
    const coordinator = (await brokers.coordinator('group', groupId)) as unknown as {
      leaveGroup(of: { groupId: string; memberId: string }): Promise<unknown>;
    };
    await coordinator.leaveGroup({ groupId, memberId });
    await brokers.close();
  }

  onStop(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  async stop(): Promise<void> {
    for (const close of this.#closers.reverse()) await close();
    await this.admin.disconnect();
    await this.stack.stop();
  }
}

/** What plain kafkajs shows of a topic at read_committed, up to its end offsets. */
export async function readByTwin(
  bench: Bench,
  topic: string,
): Promise<{ partition: number; offset: number; key: string | null; value: string | null }[]> {
  const ends = await bench.admin.fetchTopicOffsets(topic);
  const consumer = bench.twin.consumer({ groupId: `twin-${randomUUID()}`, maxWaitTimeInMs: 100 });
  const found: Awaited<ReturnType<typeof readByTwin>> = [];
  const reached = new Map<number, number>(ends.map((e) => [e.partition, 0]));
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
    reached.set(payload.partition, Number(payload.lastOffset) + 1);
  });
  await consumer.run({
    eachBatch: async ({ batch }) => {
      for (const m of batch.messages)
        found.push({
          partition: batch.partition,
          offset: Number(m.offset),
          key: m.key?.toString() ?? null,
          value: m.value?.toString() ?? null,
        });
    },
  });
  await waitFor(() => ends.every((e) => reached.get(e.partition)! >= Number(e.offset)), {
    timeoutMs: WAIT_MS,
    what: `kafkajs to read ${topic}`,
  });
  await consumer.disconnect();
  return found.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
}

/** Polls a reader until each assigned partition was read to its end. */
export async function readToEnd(
  reader: LogReader,
  io: KafkaIo,
  topic: TopicName,
  from: number[] = [],
  options: { maxBytesPerPartition?: number } = {},
): Promise<RawRecord[]> {
  const ends = await io.endOffsets(topic);
  await reader.assign(ends.map((e) => ({ ...e, offset: from[e.partition] ?? -2 })));
  const open = new Map(ends.map((e) => [e.partition, e.offset]));
  for (const e of ends) if ((from[e.partition] ?? 0) >= e.offset) open.delete(e.partition);
  const records: RawRecord[] = [];
  while (open.size > 0) {
    for (const part of await reader.poll({ maxWaitMs: 200, ...options })) {
      for (const r of part.records) records.push(r);
      if (part.nextOffset >= open.get(part.partition)!) open.delete(part.partition);
    }
  }
  reader.unassign(ends);
  return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
}

export const text = (bytes: Buffer | null): string | null => bytes?.toString() ?? null;
type Maybe<T> = T | null | undefined | false;
export const until = <T>(what: string, condition: () => Maybe<T> | Promise<Maybe<T>>): Promise<T> =>
  waitFor(condition, { timeoutMs: WAIT_MS, intervalMs: 20, what });

export const click = (i: number, userId = `u${i}`): Click => ({
  actionId: `a${i}`,
  exposureId: null,
  userId,
  itemId: `i${i}`,
  eventTimeMs: 1_700_000_000_000 + i,
});
export const clickRecord = (i: number, userId = `u${i}`) =>
  ({ topic: 'clicks', key: userId, value: click(i, userId) }) as const;
export const item = (itemId: string, title: string): Item => ({
  itemId,
  scenario: 'product_card',
  validFromMs: 1,
  title,
  category: 'c',
  tags: [],
  priceCents: 1,
  sellerId: 's',
  productId: null,
  contentVideo: false,
  embedding: null,
});
