/** Compacted topics as tables: read from their beginnings, or remembered positions, and followed. */
import type { TopicName } from '@onemall/contracts';
import type { Brokers } from './brokers.ts';
import { decodeAll } from './decoding.ts';
import type { PartitionReader } from './log-reader.ts';
import type { FetchedPartition, Position, RecordWriter, TableOptions, TableReader } from './ports.ts';
import type { TopicNames } from './topic-names.ts';
import type { ValueCodec } from './value-codec.ts';

const EARLIEST = -2;
const POLL_WAIT_MS = 500;

export interface TableParts {
  brokers: Brokers;
  names: TopicNames;
  codec: ValueCodec;
  reader: PartitionReader;
  deadLetters: RecordWriter;
}

interface Waiter {
  /** Offsets by topic and partition. */
  until: ReadonlyMap<string, number>;
  resolve(): void;
  reject(error: unknown): void;
}

export class FollowedTables implements TableReader {
  readonly #tables: ReadonlyMap<TopicName, TableOptions<TopicName>>;
  readonly #parts: TableParts;
  readonly #next = new Map<string, Position>();
  readonly #stop = new AbortController();
  #waiters: Waiter[] = [];
  #loop: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;

  /** @param tables of different topics */
  constructor(tables: readonly TableOptions<TopicName>[], parts: TableParts) {
    this.#tables = new Map(tables.map((table) => [table.topic, table]));
    this.#parts = parts;
  }

  async start(): Promise<void> {
    const { brokers, names, reader } = this.#parts;
    const topics = [...this.#tables.values()];
    await brokers.use(topics.map(({ topic }) => names.physical(topic)));
    const starts = topics.flatMap(({ topic, from = [] }) =>
      Array.from({ length: brokers.numPartitions(names.physical(topic)) }, (_, partition) => ({
        topic,
        partition,
        offset: from.find((p) => p.partition === partition)?.offset ?? EARLIEST,
      })),
    );
    await reader.assign(starts);
    for (const position of reader.positions(starts))
      this.#next.set(key(names.physical(position.topic), position.partition), position);
    this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#stop.signal.aborted) {
        const fetched = await this.#parts.reader.poll({
          maxWaitMs: POLL_WAIT_MS,
          signal: this.#stop.signal,
        });
        for (const part of fetched) {
          if (this.#stop.signal.aborted) return;
          await this.#apply(part);
        }
        this.#release();
      }
    } catch (error) {
      this.#failure = { error };
      for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
      for (const onError of new Set([...this.#tables.values()].map((table) => table.onError))) onError(error);
    }
  }

  async #apply(part: FetchedPartition): Promise<void> {
    const { codec, deadLetters, names } = this.#parts;
    const { topic, partition, nextOffset } = part;
    const table = this.#tables.get(topic)!;
    const { good, dead } = await decodeAll(codec, topic, part.records);
    if (dead.length > 0) {
      await deadLetters.send(dead.map((d) => d.letter));
      for (const { reason } of dead) table.onDeadLetter?.(reason);
    }
    for (const record of good) table.onRecord(record);
    this.#next.set(key(names.physical(topic), partition), { topic, partition, offset: nextOffset });
  }

  #release(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      for (const [at, end] of waiter.until) if ((this.#next.get(at)?.offset ?? 0) < end) return true;
      waiter.resolve();
      return false;
    });
  }

  async readToEnd(): Promise<void> {
    if (this.#failure) throw this.#failure.error;
    const { brokers, names } = this.#parts;
    // Up to the last stable offset: an open transaction of another writer must not hold up a start.
    const ends = await brokers.listOffsetsOf(
      this.positions().map(({ topic, partition }) => ({ topic: names.physical(topic), partition })),
      -1,
      'read_committed',
    );
    const until = new Map(ends.map(({ topic, partition, offset }) => [key(topic, partition), offset]));
    await new Promise<void>((resolve, reject) => {
      this.#waiters.push({ until, resolve, reject });
      this.#release();
    });
  }

  positions(): Position[] {
    return [...this.#next.values()];
  }

  async close(): Promise<void> {
    this.#stop.abort();
    const closed = new Error('the tables were closed');
    for (const waiter of this.#waiters.splice(0)) waiter.reject(closed);
    await this.#loop;
    await this.#parts.reader.close();
  }
}

const key = (physical: string, partition: number): string => `${physical}\n${partition}`;
