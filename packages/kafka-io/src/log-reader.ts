/**
 * Reads assigned partitions outside any group. One Fetch is under way per broker: while the caller works on an answer
 * the next one travels. A partition is not asked again before its answer was taken, so each holds at most one.
 */
import { BrokerError, type Brokers, isPassing } from './brokers.ts';
import { type FetchAnswer, fetchRecords } from './data-plane/fetch.ts';
import { parseRecordSet } from './data-plane/record-batch.ts';
import { KafkaIoError, OffsetOutOfRangeError } from './errors.ts';
import { Fetched, SharedMemory } from './fetched.ts';
import type { LogWriter } from './log-writer.ts';
import type { FetchedPartition, LogReader, Position, TopicPartition } from './ports.ts';
import type { TopicNames } from './topic-names.ts';

const DEFAULT_MAX_WAIT_MS = 100;
const DEFAULT_MAX_BYTES_PER_PARTITION = 1 << 20;
const MAX_BYTES_PER_FETCH = 32 << 20;
/** At the end of the log: fewer and larger answers, else every few records cost a request. */
const SMALL_ANSWER_BYTES = 64 << 10;
const MIN_INTERVAL_MS = 5;
/** What is a smaller part of its answer is copied: a part that waits long would keep the whole answer in memory. */
const COPIED_BELOW_SHARE = 0.25;
const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 2_000;
const OFFSET_OUT_OF_RANGE = 1;

interface Assigned extends TopicPartition {
  physical: string;
  offset: number;
  paused: boolean;
  /** Grows after an answer that did not hold even one batch. */
  maxBytes: number;
  inFlight: boolean;
  answer: FetchedPartition | undefined;
  failure: unknown;
  /** performance.now() before which it is not asked again, after an error that passes. */
  retryAtMs: number;
  backoffMs: number;
}

/** What reading needs of the cluster. */
export type ReaderBrokers = Pick<
  Brokers,
  'use' | 'leaderOf' | 'broker' | 'refresh' | 'listOffsets' | 'close'
>;

export class PartitionReader implements LogReader {
  readonly #brokers: ReaderBrokers;
  readonly #names: TopicNames;
  readonly #log: LogWriter;
  readonly #assigned = new Map<string, Assigned>();
  /** Brokers with a request under way or being waited for, and since when the next may leave. */
  readonly #busy = new Set<number>();
  #notBefore = new Map<number, number>();
  #refreshing = false;
  /** What went wrong with no partition in particular. */
  readonly #general: { failure: unknown } = { failure: undefined };
  #wake: () => void = () => {};
  #turn = 0;
  #closed = false;

  constructor(brokers: ReaderBrokers, names: TopicNames, log: LogWriter) {
    this.#brokers = brokers;
    this.#names = names;
    this.#log = log;
  }

  async assign(positions: readonly Position[], options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#brokers.use([...new Set(positions.map((p) => this.#names.physical(p.topic)))]);
    const starts = await this.#resolve(positions);
    if (options.signal?.aborted) return;
    for (const { topic, partition, offset } of starts)
      this.#assigned.set(key({ topic, partition }), {
        topic,
        partition,
        physical: this.#names.physical(topic),
        offset,
        paused: false,
        maxBytes: 0,
        inFlight: false,
        answer: undefined,
        failure: undefined,
        retryAtMs: 0,
        backoffMs: FIRST_BACKOFF_MS,
      });
    this.#wake();
  }

  async #resolve(positions: readonly Position[]): Promise<Position[]> {
    const open = positions.filter((p) => p.offset < 0);
    const found = new Map<string, number>();
    for (const [group, mine] of Map.groupBy(open, (p) => `${p.topic}\n${p.offset}`)) {
      const [topic, timestamp] = group.split('\n') as [Position['topic'], string];
      const offsets = await this.#brokers.listOffsets(
        this.#names.physical(topic),
        mine.map((p) => p.partition),
        timestamp === '-2' ? -2 : -1,
        'read_committed',
      );
      for (const [partition, offset] of offsets) found.set(key({ topic, partition }), offset);
    }
    return positions.map((p) => ({ ...p, offset: p.offset >= 0 ? p.offset : (found.get(key(p)) ?? 0) }));
  }

  /** Where reading goes on; partitions that are not assigned are left out. */
  positions(partitions: readonly TopicPartition[]): Position[] {
    return partitions.flatMap(({ topic, partition }) => {
      const p = this.#assigned.get(key({ topic, partition }));
      return p ? [{ topic, partition, offset: p.offset }] : [];
    });
  }

  unassign(partitions: readonly TopicPartition[]): void {
    for (const p of partitions) this.#assigned.delete(key(p));
  }
  pause(partitions: readonly TopicPartition[]): void {
    for (const p of partitions) this.#require(p).paused = true;
  }
  resume(partitions: readonly TopicPartition[]): void {
    for (const p of partitions) this.#require(p).paused = false;
    this.#wake();
  }
  #require(p: TopicPartition): Assigned {
    const found = this.#assigned.get(key(p));
    if (!found)
      throw new KafkaIoError(
        `Partition ${p.partition} of ${p.topic} is not assigned to this reader: assign it first`,
      );
    return found;
  }

  async poll(
    options: { maxWaitMs?: number; maxBytesPerPartition?: number; signal?: AbortSignal } = {},
  ): Promise<FetchedPartition[]> {
    const maxWaitMs = options.maxWaitMs ?? DEFAULT_MAX_WAIT_MS;
    const maxBytes = options.maxBytesPerPartition ?? DEFAULT_MAX_BYTES_PER_PARTITION;
    const deadline = performance.now() + maxWaitMs;
    for (;;) {
      if (this.#closed || options.signal?.aborted) return [];
      this.#throwFailure();
      const answers = this.#take();
      // One moment for both: what is not asked now because it is early must be waited for, or nothing is under way.
      const now = performance.now();
      this.#startFetches(now, maxWaitMs, maxBytes);
      if (answers.length > 0) return answers;
      if (deadline <= now) return [];
      await this.#sleep(now, deadline, options.signal);
    }
  }

  /** Once; the next poll asks the same again unless the partition was assigned elsewhere. */
  #throwFailure(): void {
    const failed = [this.#general, ...this.#assigned.values()].find((p) => p.failure !== undefined);
    if (!failed) return;
    const { failure } = failed;
    failed.failure = undefined;
    throw failure;
  }

  /** Until something arrives or changes, the time is up, or a request that was held back may leave. */
  #sleep(now: number, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    const due = [...this.#notBefore.values(), ...this.#assigned.values().map((p) => p.retryAtMs)].filter(
      (at) => at > now,
    );
    const untilMs = Math.min(deadline, ...due);
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        this.#wake = () => {};
        resolve();
      };
      const timer = setTimeout(done, Math.ceil(untilMs - now));
      signal?.addEventListener('abort', done, { once: true });
      this.#wake = done;
    });
  }

  #take(): FetchedPartition[] {
    const answers: FetchedPartition[] = [];
    for (const p of this.#assigned.values())
      if (p.answer && !p.paused) {
        answers.push(p.answer);
        p.answer = undefined;
      }
    return answers;
  }

  #startFetches(now: number, maxWaitMs: number, maxBytes: number): void {
    const wanted = [...this.#assigned.values()].filter((p) => isWanted(p, now));
    if (wanted.length === 0) return;
    // Another one first each time: the broker always gives the first its batch, whatever its size.
    const turn = this.#turn++ % wanted.length;
    const byLeader = new Map<number, Assigned[]>();
    for (let i = 0; i < wanted.length; i++) {
      const p = wanted[(turn + i) % wanted.length]!;
      let leader: number;
      try {
        leader = this.#brokers.leaderOf(p.physical, p.partition);
      } catch (error) {
        this.#retryLater(p, error);
        continue;
      }
      const mine = byLeader.get(leader);
      if (mine) mine.push(p);
      else byLeader.set(leader, [p]);
    }
    for (const [nodeId, mine] of byLeader)
      if (!this.#busy.has(nodeId) && (this.#notBefore.get(nodeId) ?? 0) <= now)
        void this.#fetch(nodeId, mine, maxWaitMs, maxBytes);
  }

  async #fetch(nodeId: number, mine: Assigned[], maxWaitMs: number, maxBytes: number): Promise<void> {
    this.#busy.add(nodeId);
    for (const p of mine) p.inFlight = true;
    let gotBytes = 0;
    const wishes = mine.map((p) => ({
      topic: p.physical,
      partition: p.partition,
      offset: p.offset,
      maxBytes: Math.max(maxBytes, p.maxBytes),
    }));
    try {
      const broker = await this.#brokers.broker(nodeId);
      const sentAtMs = performance.now();
      const { answers, bytes } = await fetchRecords(broker, wishes, {
        maxWaitMs: Math.max(1, Math.floor(maxWaitMs)),
        maxBytes: MAX_BYTES_PER_FETCH,
      });
      this.#notBefore.delete(nodeId);
      const memory = new SharedMemory(bytes);
      for (const answer of answers) {
        const p = mine.find((m) => m.physical === answer.topic && m.partition === answer.partition);
        // Unassigned or assigned anew in the meantime: the answer is for nobody.
        if (!p || this.#assigned.get(key(p)) !== p) continue;
        gotBytes += answer.set.length;
        try {
          const isCopied = answer.set.length < bytes.length * COPIED_BELOW_SHARE;
          if (isCopied) await this.#accept(p, { ...answer, set: Buffer.from(answer.set) }, sentAtMs, null);
          else await this.#accept(p, answer, sentAtMs, memory);
        } catch (error) {
          // One partition does not hold up the others of this answer.
          if (isPassing(error)) this.#retryLater(p, error);
          else p.failure = error;
        }
      }
      memory.release();
      if (gotBytes < SMALL_ANSWER_BYTES) this.#notBefore.set(nodeId, sentAtMs + MIN_INTERVAL_MS);
    } catch (error) {
      if (isPassing(error)) for (const p of mine) this.#retryLater(p, error);
      else this.#general.failure = error;
    } finally {
      this.#busy.delete(nodeId);
      for (const p of mine) p.inFlight = false;
      this.#wake();
    }
  }

  /** @param memory what the answer's bytes lie in where those of other partitions do too */
  async #accept(
    p: Assigned,
    answer: FetchAnswer,
    sentAtMs: number,
    memory: SharedMemory | null,
  ): Promise<void> {
    if (answer.errorCode === OFFSET_OUT_OF_RANGE) throw await this.#outOfRange(p);
    if (answer.errorCode !== 0)
      throw new BrokerError(
        answer.errorCode,
        `to Fetch of ${p.physical} ${p.partition} at offset ${p.offset}`,
      );
    p.backoffMs = FIRST_BACKOFF_MS;
    const { batches, ends, nextOffset, neededBytes } = parseRecordSet(answer.set, p.offset, answer.aborted);
    if (neededBytes !== undefined) p.maxBytes = neededBytes;
    const atEnd = nextOffset >= answer.lastStableOffset;
    if (nextOffset === p.offset && !atEnd) return;
    p.answer = new Fetched({
      topic: p.topic,
      partition: p.partition,
      batches,
      ends,
      fetchOffset: p.offset,
      nextOffset,
      highWatermark: answer.highWatermark,
      lastStableOffset: answer.lastStableOffset,
      sentAtMs,
      sizeBytes: answer.set.length,
      memory: batches.length > 0 && memory ? memory.held() : null,
    });
    p.offset = nextOffset;
  }

  async #outOfRange(p: Assigned): Promise<OffsetOutOfRangeError> {
    const [from, to] = await Promise.all(
      ([-2, -1] as const).map((at) =>
        this.#brokers.listOffsets(p.physical, [p.partition], at, 'read_uncommitted'),
      ),
    );
    return new OffsetOutOfRangeError(
      `Offset ${p.offset} of partition ${p.partition} of ${p.physical} is not in the log, which holds ${from!.get(p.partition)} to ${to!.get(p.partition)}. ` +
        'Records were deleted before they were read (check retention.ms), or the topic was created anew. Restore the topic, or reset the committed offset and accept the loss.',
      { topic: p.topic, partition: p.partition },
    );
  }

  /** Holds back this partition alone: others may have brokers that answer. */
  #retryLater(p: Assigned, error: unknown): void {
    p.retryAtMs = performance.now() + p.backoffMs;
    if (p.backoffMs >= MAX_BACKOFF_MS)
      this.#log.warn(
        `Reading partition ${p.partition} of ${p.physical} waits for a broker: ${(error as Error).message}`,
      );
    p.backoffMs = Math.min(MAX_BACKOFF_MS, p.backoffMs * 2);
    this.#refresh();
  }

  #refresh(): void {
    if (this.#refreshing || this.#closed) return;
    this.#refreshing = true;
    void this.#brokers
      .refresh()
      .catch((error: unknown) => {
        this.#general.failure = error;
      })
      .finally(() => {
        this.#refreshing = false;
        this.#wake();
      });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#assigned.clear();
    this.#wake();
    await this.#brokers.close();
  }
}

const isWanted = (p: Assigned, now: number): boolean =>
  !p.paused && !p.inFlight && !p.answer && p.failure === undefined && p.retryAtMs <= now;
const key = ({ topic, partition }: TopicPartition): string => `${topic}\n${partition}`;
