/**
 * live-product-changes as one owner per partition reads it: membership, a reader at the committed offsets, and per owned
 * partition a transactional writer of live SIDs and the offset, which fences the owner before.
 */
import type {
  FetchedPartition,
  KafkaIo,
  LogReader,
  Membership,
  OutRecord,
  TransactionalWriter,
} from '@onemall/kafka-io';

const TOPIC = 'live-product-changes';
/**
 * The offset costs a transaction two more requests, one after the other, and is no part of the rooms' state: changes that
 * a record of live-sids reflects are skipped by its sourceOffset when they are read again.
 */
const OFFSET_EVERY_MS = 1_000;

interface OwnedPartition {
  partition: number;
  writer: TransactionalWriter;
  /** Position after the newest fetch; null before the first one. */
  nextOffset: number | null;
  committedOffset: number;
  /** Records alone are committed before this time. */
  offsetDueMs: number;
}

export interface PartitionChange {
  assigned: readonly number[];
  revoked: readonly number[];
}

export class ChangeLog {
  readonly #kafka: KafkaIo;
  readonly #reader: LogReader;
  readonly #groupId: string;
  /** Partitions that the group gave to this member. */
  readonly #assigned = new Set<number>();
  /** Those of them that were taken. */
  readonly #owned = new Map<number, OwnedPartition>();
  readonly #changes: (PartitionChange & { done: (error?: unknown) => void })[] = [];
  #membership: Membership | undefined;
  #closed = false;

  private constructor(kafka: KafkaIo, reader: LogReader, groupId: string) {
    this.#kafka = kafka;
    this.#reader = reader;
    this.#groupId = groupId;
  }

  static async join(kafka: KafkaIo, onError: (error: unknown) => void): Promise<ChangeLog> {
    const groupId = `${kafka.options.namespace}.live-sid-updater`;
    const log = new ChangeLog(kafka, await kafka.openReader(), groupId);
    log.#membership = await kafka.joinGroup({
      groupId,
      topics: [TOPIC],
      onChange: ({ assigned, revoked }) =>
        log.#closed
          ? Promise.resolve()
          : new Promise((resolve, reject) => {
              log.#changes.push({
                assigned,
                revoked,
                done: (error) => (error === undefined ? resolve() : reject(error)),
              });
            }),
      onError,
    });
    return log;
  }

  get partitions(): number[] {
    return [...this.#owned.keys()];
  }
  owns(partition: number): boolean {
    return this.#owned.has(partition);
  }

  /** Partitions that are this member's but not taken: a commit of theirs failed. */
  get untaken(): number[] {
    return [...this.#assigned].filter((partition) => !this.#owned.has(partition));
  }

  /** Hands waiting membership changes to `handle`, one after the other; the group goes on when it resolves. */
  async settleMembership(handle: (change: PartitionChange) => Promise<void>): Promise<void> {
    for (let change = this.#changes.shift(); change; change = this.#changes.shift()) {
      try {
        for (const partition of change.revoked) this.#assigned.delete(partition);
        for (const partition of change.assigned) this.#assigned.add(partition);
        await handle(change);
        change.done();
      } catch (error) {
        change.done(error);
        throw error;
      }
    }
  }

  /** Fences the owner before and starts at its committed offset, at the oldest retained change where it left none. */
  async take(partition: number): Promise<void> {
    const writer = await this.#kafka.openTransactionalWriter(`${this.#groupId}-${partition}`);
    try {
      await writer.init();
      const [position] = await this.#kafka.committed(this.#groupId, [{ topic: TOPIC, partition }]);
      const committedOffset = position?.offset ?? -1;
      await this.#reader.assign([
        { topic: TOPIC, partition, offset: committedOffset >= 0 ? committedOffset : -2 },
      ]);
      this.#owned.set(partition, { partition, writer, nextOffset: null, committedOffset, offsetDueMs: 0 });
    } catch (error) {
      await writer.close();
      throw error;
    }
  }

  async release(partition: number): Promise<void> {
    const owned = this.#owned.get(partition);
    if (!owned) return;
    this.#owned.delete(partition);
    this.#reader.unassign([{ topic: TOPIC, partition }]);
    await owned.writer.close();
  }

  /** Goes on at the oldest retained change of one partition; changes in between are lost. */
  async skipToOldest(partition: number): Promise<void> {
    await this.#reader.assign([{ topic: TOPIC, partition, offset: -2 }]);
  }

  async poll(maxWaitMs: number, signal: AbortSignal): Promise<FetchedPartition[]> {
    const fetched = await this.#reader.poll({ maxWaitMs, signal });
    const ours = fetched.filter((f) => this.#owned.has(f.partition));
    for (const f of ours) this.#owned.get(f.partition)!.nextOffset = f.nextOffset;
    return ours;
  }

  /**
   * Writes the partition's records as one, and with them once a second the offset from which its changes are read again.
   * Tombstones always take it along: a room that ended is no longer in live-sids and could not tell what it reflects.
   * @param oldestUnstored oldest change that no record reflects yet
   * @throws TransactionFailedError: the outcome may be unknown; release the partition and take it again
   */
  async commit(
    partition: number,
    records: readonly OutRecord[],
    oldestUnstored: number | null,
    nowMs: number,
  ): Promise<void> {
    const owned = this.#owned.get(partition)!;
    const offset = oldestUnstored ?? owned.nextOffset ?? owned.committedOffset;
    const due =
      records.length === 0 || nowMs >= owned.offsetDueMs || records.some(({ value }) => value === null);
    const moves = due && offset > owned.committedOffset;
    if (records.length === 0 && !moves) return;
    await owned.writer.commit({
      records,
      ...(moves && { offsets: { groupId: this.#groupId, positions: [{ topic: TOPIC, partition, offset }] } }),
    });
    if (!moves) return;
    owned.committedOffset = offset;
    owned.offsetDueMs = nowMs + OFFSET_EVERY_MS;
  }

  /** Changes behind the end. */
  async lag(): Promise<number> {
    let lag = 0;
    for (const end of await this.#kafka.endOffsets(TOPIC)) {
      const owned = this.#owned.get(end.partition);
      if (owned) lag += Math.max(0, end.offset - (owned.nextOffset ?? Math.max(0, owned.committedOffset)));
    }
    return lag;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const change of this.#changes.splice(0)) change.done();
    await this.#membership?.stop();
    for (const partition of this.partitions) await this.release(partition);
    await this.#reader.close();
  }
}
