/** A compacted topic as a table: read from its beginning, or a remembered position, and followed. */
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
  until: ReadonlyMap<number, number>;
  resolve(): void;
  reject(error: unknown): void;
}

export class FollowedTable<T extends TopicName> implements TableReader {
  readonly #options: TableOptions<T>;
  readonly #parts: TableParts;
  readonly #next = new Map<number, number>();
  readonly #stop = new AbortController();
  #waiters: Waiter[] = [];
  #loop: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;

  constructor(options: TableOptions<T>, parts: TableParts) {
    this.#options = options;
    this.#parts = parts;
  }

  async start(): Promise<void> {
    const { topic, from = [] } = this.#options;
    const { brokers, names, reader } = this.#parts;
    await brokers.use([names.physical(topic)]);
    const starts = Array.from({ length: brokers.numPartitions(names.physical(topic)) }, (_, partition) => ({
      topic,
      partition,
      offset: from.find((p) => p.partition === partition)?.offset ?? EARLIEST,
    }));
    await reader.assign(starts);
    for (const { partition, offset } of reader.positions(starts)) this.#next.set(partition, offset);
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
      this.#options.onError(error);
    }
  }

  async #apply(part: FetchedPartition): Promise<void> {
    const { codec, deadLetters } = this.#parts;
    const { good, dead } = await decodeAll(codec, this.#options.topic, part.records);
    if (dead.length > 0) {
      await deadLetters.send(dead.map((d) => d.letter));
      for (const { reason } of dead) this.#options.onDeadLetter?.(reason);
    }
    for (const record of good) this.#options.onRecord(record);
    this.#next.set(part.partition, part.nextOffset);
  }

  #release(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      for (const [partition, end] of waiter.until) if ((this.#next.get(partition) ?? 0) < end) return true;
      waiter.resolve();
      return false;
    });
  }

  async readToEnd(): Promise<void> {
    if (this.#failure) throw this.#failure.error;
    const { brokers, names } = this.#parts;
    // Up to the last stable offset: an open transaction of another writer must not hold up a start.
    const until = await brokers.listOffsets(
      names.physical(this.#options.topic),
      [...this.#next.keys()],
      -1,
      'read_committed',
    );
    await new Promise<void>((resolve, reject) => {
      this.#waiters.push({ until, resolve, reject });
      this.#release();
    });
  }

  positions(): Position[] {
    const { topic } = this.#options;
    return [...this.#next].map(([partition, offset]) => ({ topic, partition, offset }));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    const closed = new Error('the table was closed');
    for (const waiter of this.#waiters.splice(0)) waiter.reject(closed);
    await this.#loop;
    await this.#parts.reader.close();
  }
}
