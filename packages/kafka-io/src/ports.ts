/**
 * The whole surface of Kafka that services see. Topics are named without namespace; the adapter adds it.
 * `connectKafka` (connect.ts) is the one way to get a `KafkaIo`.
 */
import type { TopicName, TopicValues, ValidationRules } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import type { SASLOptions } from 'kafkajs';
import type { RecordCursor, TransactionEnd } from './data-plane/record-batch.ts';

export * from './errors.ts';
export type { RecordCursor, TransactionEnd };

export interface KafkaAccess {
  /** PEM of the authority that signed the brokers' certificates; without it Node's own list decides. */
  tls?: { ca?: string };
  sasl?: SASLOptions;
  registry?: { username: string; password: string };
}

/** `kafkaSettings(config)` gives the first four from a service's settings. */
export interface KafkaIoOptions {
  brokers: string;
  registryUrl: string;
  namespace: string;
  access?: KafkaAccess;
  /** Name of the service: client id, and `service` in dead letters. */
  clientId: string;
  /** Values that break these rules are bad records in decode, consume and openTable alike; none are checked without it. */
  validation?: ValidationRules;
  /** Messages of the client; without it warnings and errors go to stderr. */
  onLog?: (entry: KafkaLogEntry) => void;
  clock?: Clock;
}

export interface KafkaLogEntry {
  level: 'debug' | 'warn' | 'error';
  message: string;
  details: Record<string, unknown>;
}

export interface TopicPartition {
  topic: TopicName;
  partition: number;
}
export interface Position extends TopicPartition {
  /** Offset of the next record to read. */
  offset: number;
  /** Free text committed beside the offset. */
  metadata?: string;
}

/** A record as the broker keeps it. Buffers may be views into a fetched batch: copy what outlives the next poll. */
export interface RawRecord extends TopicPartition {
  offset: number;
  /** Broker append time for LogAppendTime topics, else the producer's. */
  timestampMs: number;
  key: Buffer | null;
  value: Buffer | null;
}

/** A decoded record. value is null for a tombstone. */
export interface TypedRecord<T extends TopicName = TopicName> extends TopicPartition {
  topic: T;
  offset: number;
  timestampMs: number;
  key: string;
  value: TopicValues[T] | null;
}

/** A record to write. A null value is a tombstone. The partition follows from the key unless given. */
export interface OutRecord<T extends TopicName = TopicName> {
  topic: T;
  key: string;
  value: TopicValues[T] | null;
  partition?: number;
  timestampMs?: number;
}

/** A record whose value is in wire format already, such as the bytes of a record that was read. */
export interface RawOutRecord {
  topic: TopicName;
  key: string | Buffer | null;
  valueBytes: Buffer | null;
  partition?: number;
  timestampMs?: number;
}
/**
 * Many records of one partition that lie in one piece of memory, so that none needs an object: key and value of record i
 * are the bytes from `keyStart[i]` and from `valueStart[i]` on. Values are in wire format.
 */
export interface RecordBlock {
  topic: TopicName;
  /** Follows from the keys unless given. */
  partition?: number;
  bytes: Uint8Array;
  count: number;
  keyStart: ArrayLike<number>;
  keyLength: ArrayLike<number>;
  valueStart: ArrayLike<number>;
  valueEnd: ArrayLike<number>;
  /** Told once its bytes are copied into batches: nobody looks at them any more, however the transaction ends. */
  copied?: () => void;
}
export type AnyOutRecord = OutRecord | RawOutRecord;

/** One partition's part of a poll. */
export interface FetchedPartition extends TopicPartition {
  /** Made when first read, an object for each record; hot paths use `cursor`. */
  readonly records: RawRecord[];
  /** A fresh pass over the same records without an object for each. */
  cursor(): RecordCursor;
  /** Nobody looks at the bytes of these records any more: they may be written over. Who keeps views of them never calls it. */
  release(): void;
  /** Transactions whose end lies in this part of the log, by others too. */
  ends: readonly TransactionEnd[];
  /** Bytes of the batches, as a measure of what is buffered. */
  sizeBytes: number;
  /** Position after this fetch, past control batches and compacted gaps: progress even where records is empty. */
  nextOffset: number;
  highWatermark: number;
  lastStableOffset: number;
  /** performance.now() when the request of this answer left: an empty answer sent after a moment proves the log was read to its end at that moment. */
  sentAtMs: number;
}

/** Reads assigned partitions at read_committed, from given offsets, outside any group. */
export interface LogReader {
  /**
   * Starts reading there; -2 is the earliest retained record, -1 the end. Replaces an earlier position of the partition.
   * @param options.signal nothing is assigned once it has aborted, however long leaders were asked where the log begins
   */
  assign(positions: readonly Position[], options?: { signal?: AbortSignal }): Promise<void>;
  unassign(partitions: readonly TopicPartition[]): void;
  /** Assigned partitions whose buffers a caller has filled are left out until resumed. */
  pause(partitions: readonly TopicPartition[]): void;
  resume(partitions: readonly TopicPartition[]): void;
  /**
   * Answers as soon as any partition has something new, at most after maxWaitMs; partitions without news are left out
   * unless they were asked and were at their end (records empty).
   * @throws OffsetOutOfRangeError never silently resets
   */
  poll(options?: {
    maxWaitMs?: number;
    maxBytesPerPartition?: number;
    signal?: AbortSignal;
  }): Promise<FetchedPartition[]>;
  close(): Promise<void>;
}

/** What a consumer group member does with its share of the partitions. */
export interface ConsumerHandler<T extends TopicName> {
  /** Called with records of one partition in order; offsets are committed when it resolves. Throwing ends the consumer. */
  onRecords(records: TypedRecord<T>[]): Promise<void>;
  /** Newly assigned and no longer assigned partitions, before records of them come. */
  onAssigned?(partitions: readonly TopicPartition[]): Promise<void>;
  onRevoked?(partitions: readonly TopicPartition[]): Promise<void>;
}
export interface RunningConsumer {
  /** Records behind the end, over all assigned partitions. */
  lag(): Promise<number>;
  /** Finishes the batch under way, commits, leaves the group. */
  stop(): Promise<void>;
}
export interface ConsumerOptions<T extends TopicName> {
  groupId: string;
  topics: readonly T[];
  handler: ConsumerHandler<T>;
  /** Where a partition without a committed offset starts. */
  from: 'earliest' | 'latest';
  /** Called when the consumer cannot go on. */
  onError: (error: unknown) => void;
  /** Called for each record sent to dead-letters. */
  onDeadLetter?: (reason: string) => void;
  /** Default 10,000. */
  sessionTimeoutMs?: number;
  maxBytesPerPartition?: number;
}

/** Membership of a group in which partition p of all topics belongs to one member. Offsets and records are the caller's. */
export interface Membership {
  stop(): Promise<void>;
}
export interface MembershipOptions {
  groupId: string;
  topics: readonly TopicName[];
  /** Sticky: partitions that stay are in neither list. Awaited in order; a throw reaches onError. */
  onChange(change: { assigned: readonly number[]; revoked: readonly number[] }): Promise<void>;
  /**
   * A rebalance has begun and this member rejoins when this resolves, at the latest after half the session timeout:
   * commit what is under way, since others may own the partitions next.
   */
  onRebalancing?(): Promise<void>;
  onError: (error: unknown) => void;
  /** Default 10,000. A member that is silent for so long loses its partitions. */
  sessionTimeoutMs?: number;
}

/** A compacted topic read from its beginning and followed. Bad records go to dead-letters of the caller. */
export interface TableReader {
  /** Resolves when everything that was in the topic at this call has been given to onRecord. */
  readToEnd(): Promise<void>;
  positions(): Position[];
  close(): Promise<void>;
}
export interface TableOptions<T extends TopicName> {
  topic: T;
  /** In offset order per partition. */
  onRecord(record: TypedRecord<T>): void;
  onError: (error: unknown) => void;
  /** Called for each record sent to dead-letters. */
  onDeadLetter?: (reason: string) => void;
  /** Where to go on from, e.g. out of a checkpoint; else from the beginning. */
  from?: readonly Position[];
}
export type AnyTableOptions = { [T in TopicName]: TableOptions<T> }[TopicName];

/** Idempotent producer for services with low rates; acks = all. */
export interface RecordWriter {
  /** Resolves when all are acknowledged. Waits while a broker is away. */
  send(records: readonly AnyOutRecord[]): Promise<void>;
  close(): Promise<void>;
}

/**
 * Writes records and consumer offsets in one transaction under one transactional id.
 * After TransactionFailedError the writer is unusable: the outcome may be unknown, so `init` again (which fences and
 * settles it), read the committed offsets, and restore.
 */
export interface TransactionalWriter {
  /** InitProducerId: fences any older owner of the id and settles its open transaction. */
  init(): Promise<void>;
  /** @throws FencedError if a newer owner took the id, TransactionFailedError otherwise */
  commit(transaction: {
    records: readonly AnyOutRecord[];
    blocks?: readonly RecordBlock[];
    offsets?: { groupId: string; positions: readonly Position[] };
  }): Promise<void>;
  close(): Promise<void>;
}

export interface KafkaIo {
  readonly options: KafkaIoOptions;
  /**
   * Creates what is missing of these topics with the table's configuration. numPartitions holds for all but the
   * topics that the table gives one partition.
   */
  createTopics(
    topics: readonly TopicName[],
    more: { retention: RetentionSettings; numPartitions?: number },
  ): Promise<void>;
  /**
   * Compares live topics with the table.
   * @throws TopicRefusedError naming topic, setting, both values and the command that mends it; also for unequal
   * partition counts of co-partitioned topics.
   */
  checkTopics(topics: readonly TopicName[], retention: RetentionSettings): Promise<void>;
  numPartitions(topic: TopicName): Promise<number>;
  /** High watermarks: open transactions count, so that a lag of zero means that nothing at all is behind. */
  endOffsets(topic: TopicName): Promise<Position[]>;
  /**
   * Committed offsets with metadata, offset -1 where none; settle a transactional id first (see TransactionalWriter).
   * @param options.settled default true: waits for transactions under way, of a dead owner up to its timeout. false
   *   gives what was committed before them, at once: for looking on, never to go on from
   */
  committed(
    groupId: string,
    partitions: readonly TopicPartition[],
    options?: { settled?: boolean },
  ): Promise<Position[]>;
  /** Registers the topics' value schemas with the table's compatibility. @throws on an incompatible change */
  registerSchemas(topics: readonly TopicName[]): Promise<void>;
  /** Decodes one record; asks the registry for schema ids not seen yet, waiting while it is away. @throws BadRecordError */
  decode<T extends TopicName>(topic: T, record: RawRecord): Promise<TypedRecord<T>>;
  /**
   * The writer's schema of an id, parsed JSON; waits while the registry is away.
   * @throws BadRecordError when the registry does not know it or it is no Avro schema
   */
  schemaOf(id: number): Promise<unknown>;
  /**
   * Whether values with this schema id have this build's schema, so that their bytes may be read and passed on as they
   * are; undefined until `learnSchema` has asked for it.
   */
  isOwnSchema(topic: TopicName, schemaId: number): boolean | undefined;
  /** Asks the registry for a schema id not seen yet, waiting while it is away. */
  learnSchema(topic: TopicName, schemaId: number): Promise<void>;
  /** Decodes at once what has a learnt schema. @throws BadRecordError, Error where the schema was not learnt */
  decodeNow<T extends TopicName>(topic: T, record: RawRecord): TypedRecord<T>;
  /** What stands before the Avro bytes of this build's values. */
  wireHeader(topic: TopicName): Promise<Buffer>;
  /** Wire-format bytes with this build's schema. */
  encode<T extends TopicName>(topic: T, value: TopicValues[T]): Promise<Buffer>;
  openReader(): Promise<LogReader>;
  openTable<T extends TopicName>(options: TableOptions<T>): Promise<TableReader>;
  /** Several topics followed as one: one request asks for all of their ends. */
  openTables(tables: readonly AnyTableOptions[]): Promise<TableReader>;
  consume<T extends TopicName>(options: ConsumerOptions<T>): Promise<RunningConsumer>;
  joinGroup(options: MembershipOptions): Promise<Membership>;
  openWriter(): Promise<RecordWriter>;
  /** @param options.transactionTimeoutMs default 60,000: an open transaction of a dead owner holds readers up for so long */
  openTransactionalWriter(
    transactionalId: string,
    options?: { transactionTimeoutMs?: number },
  ): Promise<TransactionalWriter>;
  /** A dead letter for a bad record, with its bytes (of a payload the first MiB), coordinates and reason. */
  deadLetter(record: RawRecord, error: { reason: string; message: string }): OutRecord<'dead-letters'>;
  close(): Promise<void>;
}
export interface RetentionSettings {
  largestWindowMs: number;
  graceMs: number;
  longestOutageMs: number;
}
