/**
 * A group consumer for services with low rates, at least once: read, dead letters out, handler, then the offsets.
 * The own data plane reads, so nothing aborted or cut off gets through and control batches count as read.
 */
import type { TopicName } from '@onemall/contracts';
import type { Kafka } from 'kafkajs';
import type { Brokers } from './brokers.ts';
import type { CommittedOffsets } from './committed-offsets.ts';
import { decodeAll } from './decoding.ts';
import { type GroupMember, joinGroup } from './group-member.ts';
import type { PartitionReader } from './log-reader.ts';
import type { LogWriter } from './log-writer.ts';
import type {
  ConsumerOptions,
  FetchedPartition,
  RecordWriter,
  RunningConsumer,
  TopicPartition,
} from './ports.ts';
import type { TopicNames } from './topic-names.ts';
import type { ValueCodec } from './value-codec.ts';

const POLL_WAIT_MS = 500;

export interface ConsumerParts {
  kafka: Kafka;
  brokers: Brokers;
  names: TopicNames;
  codec: ValueCodec;
  committed: CommittedOffsets;
  reader: PartitionReader;
  deadLetters: RecordWriter;
  log: LogWriter;
}

/** How far the handler has come, and what of it the group knows. */
interface Progress extends TopicPartition {
  next: number;
  committed: number;
}

export class GroupConsumer<T extends TopicName> implements RunningConsumer {
  readonly #options: ConsumerOptions<T>;
  readonly #parts: ConsumerParts;
  readonly #progress = new Map<string, Progress>();
  readonly #stop = new AbortController();
  #member: GroupMember | undefined;
  #loop: Promise<void> = Promise.resolve();
  #turn: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => {};
  #failed = false;

  constructor(options: ConsumerOptions<T>, parts: ConsumerParts) {
    this.#options = options;
    this.#parts = parts;
  }

  async start(): Promise<void> {
    const { kafka, names, brokers, log } = this.#parts;
    const topics = this.#options.topics.map((t) => names.physical(t));
    await brokers.use(topics);
    this.#member = await joinGroup({
      kafka,
      log,
      groupId: this.#options.groupId,
      topics,
      sessionTimeoutMs: this.#options.sessionTimeoutMs,
      onRebalancing: () => this.#exclusive(() => this.#commit()),
      onOwned: (partitions) => this.#exclusive(() => this.#own(partitions)),
      onError: (error) => this.#fail(error),
    });
    this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#stop.signal.aborted) {
        if (this.#progress.size === 0) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
            if (this.#progress.size > 0 || this.#stop.signal.aborted) resolve();
          });
          continue;
        }
        const fetched = await this.#parts.reader.poll({
          maxWaitMs: POLL_WAIT_MS,
          signal: this.#stop.signal,
          ...(this.#options.maxBytesPerPartition !== undefined && {
            maxBytesPerPartition: this.#options.maxBytesPerPartition,
          }),
        });
        if (fetched.length > 0)
          await this.#exclusive(async () => {
            for (const part of fetched) await this.#handle(part);
            await this.#commit();
          });
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** A rebalance and the handler never run at the same time. */
  #exclusive<R>(work: () => Promise<R>): Promise<R> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #handle(part: FetchedPartition): Promise<void> {
    const progress = this.#progress.get(key(part));
    // Taken away, or assigned anew from an earlier offset, while the answer was on its way.
    if (!progress || part.nextOffset <= progress.next) return;
    const { codec, deadLetters } = this.#parts;
    const { good, dead } = await decodeAll(codec, part.topic as T, part.records);
    if (dead.length > 0) {
      await deadLetters.send(dead.map((d) => d.letter));
      for (const { reason } of dead) this.#options.onDeadLetter?.(reason);
    }
    if (good.length > 0) await this.#options.handler.onRecords(good);
    progress.next = part.nextOffset;
  }

  async #commit(): Promise<void> {
    const ahead = [...this.#progress.values()].filter((p) => p.next > p.committed);
    if (ahead.length === 0) return;
    try {
      await this.#member!.commit(
        ahead.map((p) => ({
          topic: this.#parts.names.physical(p.topic),
          partition: p.partition,
          offset: p.next,
        })),
      );
      for (const p of ahead) p.committed = p.next;
    } catch (error) {
      // The group is changing or its coordinator is away: committed with the next batch, or read again by the next owner.
      this.#parts.log.debug(`Offsets of ${this.#options.groupId} are not committed yet: ${String(error)}`);
    }
  }

  async #own(numbers: readonly number[]): Promise<void> {
    const { names, brokers, committed, reader } = this.#parts;
    const owned = this.#options.topics.flatMap((topic) =>
      numbers
        .filter((p) => p < brokers.numPartitions(names.physical(topic)))
        .map((partition): TopicPartition => ({ topic, partition })),
    );
    const revoked = [...this.#progress.values()].filter((p) => !owned.some((o) => key(o) === key(p)));
    for (const p of revoked) this.#progress.delete(key(p));
    reader.unassign(revoked);
    if (revoked.length > 0) await this.#options.handler.onRevoked?.(revoked.map(bare));
    const assigned = owned.filter((o) => !this.#progress.has(key(o)));
    if (assigned.length === 0) return;
    const offsets = await committed.read(this.#options.groupId, assigned);
    await this.#options.handler.onAssigned?.(assigned);
    const none = this.#options.from === 'earliest' ? -2 : -1;
    await reader.assign(offsets.map((o) => ({ ...o, offset: o.offset < 0 ? none : o.offset })));
    for (const at of reader.positions(assigned))
      this.#progress.set(key(at), {
        ...bare(at),
        next: at.offset,
        committed: offsets.find((o) => key(o) === key(at))!.offset,
      });
    // Where 'latest' began is remembered: a crash before the first record must not skip what came in between.
    await this.#commit();
    this.#wake();
  }

  async lag(): Promise<number> {
    let lag = 0;
    for (const [topic, mine] of Map.groupBy(this.#progress.values(), (p) => p.topic)) {
      const ends = await this.#parts.brokers.listOffsets(
        this.#parts.names.physical(topic),
        mine.map((p) => p.partition),
        -1,
        'read_uncommitted',
      );
      for (const p of mine) lag += Math.max(0, ends.get(p.partition)! - p.next);
    }
    return lag;
  }

  #fail(error: unknown): void {
    if (this.#failed || this.#stop.signal.aborted) return;
    this.#failed = true;
    this.#stop.abort();
    this.#wake();
    this.#options.onError(error);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#loop;
    if (!this.#failed) await this.#exclusive(() => this.#commit());
    await this.#member?.stop();
    await this.#parts.reader.close();
  }
}

const key = ({ topic, partition }: TopicPartition): string => `${topic}\n${partition}`;
const bare = ({ topic, partition }: TopicPartition): TopicPartition => ({ topic, partition });
