/**
 * Committed offsets of a group. An OffsetFetch right after a commit could give the value before it (11 of 450 rounds
 * with kafkajs): this one asks for stable offsets, and checks the answer against what this process committed itself.
 */
import type { Brokers } from './brokers.ts';
import { fetchGroupOffsets } from './data-plane/group-offsets.ts';
import type { GroupOffset } from './data-plane/transactions.ts';
import { KafkaIoError } from './errors.ts';
import type { Position, TopicPartition } from './ports.ts';
import type { TopicNames } from './topic-names.ts';

/** A transaction of a dead owner keeps its offsets unstable until it times out, by default after 60 s. */
const GIVE_UP_MS = 70_000;

export class CommittedOffsets {
  readonly #brokers: Brokers;
  readonly #names: TopicNames;
  readonly #own = new Map<string, number>();

  constructor(brokers: Brokers, names: TopicNames) {
    this.#brokers = brokers;
    this.#names = names;
  }

  /** What this process has committed for sure. */
  remember(groupId: string, positions: readonly Position[]): void {
    for (const p of positions) this.#own.set(key(groupId, p), p.offset);
  }

  async read(
    groupId: string,
    partitions: readonly TopicPartition[],
    { settled }: { settled: boolean } = { settled: true },
  ): Promise<Position[]> {
    if (partitions.length === 0) return [];
    const topics = [...Map.groupBy(partitions, (p) => p.topic)].map(([topic, mine]) => ({
      topic: this.#names.physical(topic),
      partitions: mine.map((p) => p.partition),
    }));
    return this.#brokers.waitOut(
      `reading committed offsets of ${groupId}`,
      async () => {
        const coordinator = await this.#brokers.coordinator('group', groupId);
        const offsets = await fetchGroupOffsets(coordinator, groupId, topics, settled);
        return offsets.map((o) => this.#position(groupId, o, settled));
      },
      // Where nothing has to settle only a broker that is away keeps the answer back, however long that takes.
      settled ? { giveUpMs: GIVE_UP_MS } : {},
    );
  }

  #position(
    groupId: string,
    { topic, partition, offset, metadata }: GroupOffset,
    settled: boolean,
  ): Position {
    const position = { topic: this.#names.logical(topic), partition, offset, metadata };
    const own = this.#own.get(key(groupId, position));
    if (settled && own !== undefined && offset < own)
      throw new StaleOffsetError(
        `Group ${groupId} has offset ${offset} for ${topic} ${partition}, this process committed ${own}: the group's coordinator has lost commits (restart that broker, so that it reads them from its log again), or an operator reset the offsets (then restart this service)`,
      );
    return position;
  }
}

/** Retried like an answer of a broker that is catching up. */
class StaleOffsetError extends KafkaIoError {
  override name = 'StaleOffsetError';
}

const key = (groupId: string, p: TopicPartition): string => `${groupId}\n${p.topic}\n${p.partition}`;
