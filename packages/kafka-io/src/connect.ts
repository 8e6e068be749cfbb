/** Puts the parts together: `connectKafka` is the one way to get a `KafkaIo`. */
import type { TopicName, TopicValues } from '@onemall/contracts';
import { systemClock } from '@onemall/service-kit';
import { Kafka, logLevel } from 'kafkajs';
import { connectionSecurity } from './access.ts';
import type { Encoding } from './batch-set.ts';
import { Brokers } from './brokers.ts';
import { CommittedOffsets } from './committed-offsets.ts';
import { GroupConsumer } from './consumer.ts';
import { KafkaIoError } from './errors.ts';
import { PartitionReader } from './log-reader.ts';
import { LogWriter } from './log-writer.ts';
import { joinAsMember } from './membership.ts';
import type {
  AnyTableOptions,
  ConsumerOptions,
  KafkaIo,
  KafkaIoOptions,
  LogReader,
  Membership,
  MembershipOptions,
  OutRecord,
  Position,
  RawRecord,
  RecordWriter,
  RetentionSettings,
  RunningConsumer,
  TableOptions,
  TableReader,
  TopicPartition,
  TransactionalWriter,
  TypedRecord,
} from './ports.ts';
import { IdempotentWriter } from './record-writer.ts';
import { Registry } from './registry.ts';
import { Sockets } from './sockets.ts';
import { FollowedTables } from './table-reader.ts';
import { TopicNames } from './topic-names.ts';
import { Topics } from './topics.ts';
import { TransactionalRecordWriter } from './transactional-writer.ts';
import { ValueCodec } from './value-codec.ts';

/** Waits as long as no broker answers. */
export async function connectKafka(options: KafkaIoOptions): Promise<KafkaIo> {
  const io = new ConnectedKafka(options);
  await io.connect();
  return io;
}

class ConnectedKafka implements KafkaIo {
  readonly options: KafkaIoOptions;
  readonly #log: LogWriter;
  readonly #names: TopicNames;
  readonly #sockets = new Sockets();
  readonly #kafka: Kafka;
  readonly #brokers: Brokers;
  readonly #registry: Registry;
  readonly #codec: ValueCodec;
  readonly #committed: CommittedOffsets;
  readonly #topics: Topics;
  readonly #encoding: Encoding;
  readonly #admin: ReturnType<Kafka['admin']>;
  readonly #open = new Set<() => Promise<void>>();
  #deadLetters: IdempotentWriter | undefined;

  constructor(options: KafkaIoOptions) {
    this.options = options;
    const clock = options.clock ?? systemClock;
    this.#log = new LogWriter(options.onLog, () => clock.nowMs());
    this.#names = new TopicNames(options.namespace);
    this.#kafka = new Kafka({
      clientId: options.clientId,
      brokers: options.brokers.split(',').map((b) => b.trim()),
      ...connectionSecurity(options.access ?? {}),
      socketFactory: this.#sockets.factory,
      connectionTimeout: 3_000,
      requestTimeout: 30_000,
      retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 5 },
      logLevel: logLevel.WARN,
      logCreator: this.#log.kafkajsLogCreator,
    });
    this.#brokers = this.#newBrokers();
    this.#admin = this.#kafka.admin();
    const names = this.#names;
    const log = this.#log;
    this.#registry = new Registry({
      url: options.registryUrl,
      credentials: options.access?.registry,
      clientId: options.clientId,
      names,
      clock,
      log,
    });
    this.#codec = new ValueCodec({
      registry: this.#registry,
      validation: options.validation,
      service: options.clientId,
      clock,
    });
    this.#committed = new CommittedOffsets(this.#brokers, names);
    this.#topics = new Topics({
      admin: this.#admin,
      brokers: this.#brokers,
      names,
      addresses: options.brokers,
    });
    this.#encoding = { brokers: this.#brokers, names, codec: this.#codec, clock };
  }

  async connect(): Promise<void> {
    await this.#brokers.connect();
    await this.#brokers.waitOut('connecting', () => this.#admin.connect());
  }

  /** Each reader has its own connections: a Fetch that waits holds up every request behind it. */
  #newBrokers(): Brokers {
    const { brokers, access = {}, clientId } = this.options;
    return new Brokers({ brokers, access, clientId, log: this.#log });
  }

  createTopics(
    topics: readonly TopicName[],
    more: { retention: RetentionSettings; numPartitions?: number },
  ): Promise<void> {
    return this.#topics.create(topics, more);
  }
  checkTopics(topics: readonly TopicName[], retention: RetentionSettings): Promise<void> {
    return this.#topics.check(topics, retention);
  }

  async numPartitions(topic: TopicName): Promise<number> {
    const physical = this.#names.physical(topic);
    await this.#brokers.use([physical]);
    return this.#brokers.numPartitions(physical);
  }

  async endOffsets(topic: TopicName): Promise<Position[]> {
    const physical = this.#names.physical(topic);
    const partitions = Array.from({ length: await this.numPartitions(topic) }, (_, p) => p);
    const ends = await this.#brokers.listOffsets(physical, partitions, -1, 'read_uncommitted');
    return partitions.map((partition) => ({ topic, partition, offset: ends.get(partition)! }));
  }

  committed(
    groupId: string,
    partitions: readonly TopicPartition[],
    { settled = true }: { settled?: boolean } = {},
  ): Promise<Position[]> {
    return this.#committed.read(groupId, partitions, { settled });
  }

  async registerSchemas(topics: readonly TopicName[]): Promise<void> {
    await Promise.all(topics.map((topic) => this.#codec.schemaId(topic)));
  }
  schemaOf(id: number): Promise<unknown> {
    return this.#registry.schemaOf(id);
  }
  decode<T extends TopicName>(topic: T, record: RawRecord): Promise<TypedRecord<T>> {
    return this.#codec.decode(topic, record);
  }
  isOwnSchema(topic: TopicName, schemaId: number): boolean | undefined {
    return this.#codec.isOwnSchema(topic, schemaId);
  }
  learnSchema(topic: TopicName, schemaId: number): Promise<void> {
    return this.#codec.learnSchema(topic, schemaId);
  }
  decodeNow<T extends TopicName>(topic: T, record: RawRecord): TypedRecord<T> {
    const typed = this.#codec.decodeNow(topic, record);
    if (!typed)
      throw new KafkaIoError(
        `The schema of ${topic} ${record.partition} at offset ${record.offset} was not asked for yet: call learnSchema with its id first`,
      );
    return typed;
  }
  wireHeader(topic: TopicName): Promise<Buffer> {
    return this.#codec.wireHeader(topic);
  }
  encode<T extends TopicName>(topic: T, value: TopicValues[T]): Promise<Buffer> {
    return this.#codec.encode(topic, value);
  }
  deadLetter(record: RawRecord, error: { reason: string; message: string }): OutRecord<'dead-letters'> {
    return this.#codec.deadLetter(record, error);
  }

  async openReader(): Promise<LogReader> {
    return this.#newReader();
  }
  #newReader(): PartitionReader {
    return this.#track(new PartitionReader(this.#newBrokers(), this.#names, this.#log), 'close');
  }

  async openTable<T extends TopicName>(options: TableOptions<T>): Promise<TableReader> {
    return this.#followTables([options]);
  }
  async openTables(tables: readonly AnyTableOptions[]): Promise<TableReader> {
    return this.#followTables(tables);
  }
  async #followTables(tables: readonly TableOptions<TopicName>[]): Promise<TableReader> {
    const table = new FollowedTables(tables, {
      brokers: this.#brokers,
      names: this.#names,
      codec: this.#codec,
      reader: this.#newReader(),
      deadLetters: this.#deadLetterWriter(),
    });
    await table.start();
    return this.#track(table, 'close');
  }

  async consume<T extends TopicName>(options: ConsumerOptions<T>): Promise<RunningConsumer> {
    const consumer = new GroupConsumer(options, {
      kafka: this.#kafka,
      brokers: this.#brokers,
      names: this.#names,
      codec: this.#codec,
      committed: this.#committed,
      reader: this.#newReader(),
      deadLetters: this.#deadLetterWriter(),
      log: this.#log,
    });
    await consumer.start();
    return this.#track(consumer, 'stop');
  }

  async joinGroup(options: MembershipOptions): Promise<Membership> {
    const membership = await joinAsMember(options, {
      kafka: this.#kafka,
      brokers: this.#brokers,
      names: this.#names,
      log: this.#log,
    });
    return this.#track(membership, 'stop');
  }

  async openWriter(): Promise<RecordWriter> {
    return new IdempotentWriter(this.#encoding);
  }
  #deadLetterWriter(): RecordWriter {
    this.#deadLetters ??= new IdempotentWriter(this.#encoding);
    return this.#deadLetters;
  }

  async openTransactionalWriter(
    transactionalId: string,
    options: { transactionTimeoutMs?: number } = {},
  ): Promise<TransactionalWriter> {
    const writer = new TransactionalRecordWriter({
      transactionalId,
      // Its own connection: a broker answers one request of a connection after the other.
      brokers: this.#newBrokers(),
      encoding: this.#encoding,
      committed: this.#committed,
      transactionTimeoutMs: options.transactionTimeoutMs,
    });
    return this.#track(writer, 'close');
  }

  /**
   * Ends with the client unless its owner ends it before. Then it is forgotten: through its connections it holds whatever
   * waited on them, the whole state of a partition that went to another instance.
   */
  #track<E extends 'close' | 'stop', T extends Record<E, () => Promise<void>>>(part: T, end: E): T {
    const own = part[end].bind(part);
    const endOnce = async (): Promise<void> => {
      await own();
      this.#open.delete(endOnce);
    };
    this.#open.add(endOnce);
    return Object.assign(part, { [end]: endOnce });
  }

  async close(): Promise<void> {
    // Newest first: what uses a reader closes before the reader.
    for (const close of [...this.#open].reverse()) await close();
    await this.#deadLetters?.close();
    this.#registry.close();
    await this.#sockets.closeWith(() => this.#admin.disconnect());
    await this.#brokers.close();
  }
}
