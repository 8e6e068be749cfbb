/** What must hold before a record is read: else the service would lose or repeat samples without anyone noticing. */
import type { TopicName } from '@onemall/contracts';
import {
  type KafkaIo,
  OffsetOutOfRangeError,
  type Position,
  partitionOf,
  type RawRecord,
  type RetentionSettings,
  TopicRefusedError,
} from '@onemall/kafka-io';
import type { Loss } from '../config.ts';
import { parseMetadata } from '../stages/commit-metadata.ts';
import { LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';

export const OUTPUT_TOPICS = ['training-samples', 'late-events', 'dead-letters'] as const;
export const TABLE_TOPICS = ['items', 'item-sids', 'live-sids'] as const;

export class StartRefusedError extends Error {
  override name = 'StartRefusedError';
}

export interface StartFacts {
  numPartitions: number;
  /** Whether a partition's samples go to the partition of training-samples with the same number. */
  samplesAlign: boolean;
  /** The least count that a commit was made with; partitions from this number on are new since. */
  numPartitionsBefore: number;
}

/**
 * @throws TopicRefusedError for a topic that is configured otherwise than the topic table, or unequal partition counts
 * @throws StartRefusedError for a partition count that changed since the last commit
 */
export async function checkStart(
  io: KafkaIo,
  groupId: string,
  retention: RetentionSettings,
  acceptLoss: readonly Loss[],
): Promise<StartFacts> {
  await io.checkTopics([...LOG_TOPICS, ...TABLE_TOPICS, ...OUTPUT_TOPICS], retention);
  const counts = await Promise.all(LOG_TOPICS.map((topic) => io.numPartitions(topic)));
  if (new Set(counts).size > 1)
    throw new TopicRefusedError(
      `Topics ${LOG_TOPICS.map((t, i) => `${t} (${counts[i]} partitions)`).join(', ')} are joined partition by partition and need equal partition counts: create them anew with the same count`,
    );
  const numPartitions = counts[0]!;
  // At once: a transaction that a killed owner left open ends when its partition is taken over, not before.
  const commits = await io.committed(groupId, allPartitions(numPartitions), { settled: false });
  let numPartitionsBefore = numPartitions;
  for (const { topic, partition, offset, metadata } of commits) {
    if (offset < 0) continue;
    const then = parseMetadata(metadata).numPartitions;
    numPartitionsBefore = Math.min(numPartitionsBefore, then);
    if (then !== numPartitions && !acceptLoss.includes('changed-partitions'))
      throw new StartRefusedError(
        `${topic} has ${numPartitions} partitions, but the commit of its partition ${partition} was made when there were ${then}: ` +
          'users moved to other partitions, so actions would not find their exposures. Drain the pipeline before changing the count, ' +
          'or accept that open exposures lose actions with ONEMALL_ACCEPT_LOSS=changed-partitions',
      );
  }
  const samplesAlign = (await io.numPartitions('training-samples')) === numPartitions;
  return { numPartitions, samplesAlign, numPartitionsBefore };
}

/**
 * @throws StartRefusedError where a partition has no committed offset although its samples exist: everything retained
 * would be read and sampled again
 */
export async function refuseMissingCommits(
  io: Pick<KafkaIo, 'endOffsets' | 'openReader'>,
  groupId: string,
  partition: number,
  { numPartitions, samplesAlign, numPartitionsBefore }: StartFacts,
  stopping: AbortSignal,
): Promise<void> {
  if (partition >= numPartitionsBefore) return;
  const ends = await io.endOffsets('training-samples');
  const mayHold = ends.filter((end) => end.offset > 0 && (!samplesAlign || end.partition === partition));
  // With another count than that of the logs a sample's place does not tell whose it is: its user does.
  const isOwn = ({ key }: RawRecord): boolean =>
    samplesAlign || (key !== null && partitionOf(key, numPartitions) === partition);
  const filled = await partitionsWithSamples(io, mayHold, isOwn, stopping);
  if (filled.length === 0) return;
  throw new StartRefusedError(
    `Group ${groupId} has no committed offsets for partition ${partition} of ${LOG_TOPICS.join(', ')}, but training-samples has records of its users in partition ${filled.join(', ')}: ` +
      'starting at the beginning would give every retained exposure a second sample. Restore the offsets of the group, or empty training-samples, ' +
      'or accept repeated samples with ONEMALL_ACCEPT_LOSS=missing-commits',
  );
}

/** Where such a sample was committed, retained or not: what the aborted first transaction of a killed owner left is none. */
async function partitionsWithSamples(
  io: Pick<KafkaIo, 'openReader'>,
  ends: readonly Position[],
  isOwn: (sample: RawRecord) => boolean,
  stopping: AbortSignal,
): Promise<number[]> {
  const filled: number[] = [];
  for (const { topic, partition, offset: end } of ends) {
    const reader = await io.openReader();
    try {
      await reader.assign([{ topic, partition, offset: 0 }]);
      for (let isRead = false; !isRead; ) {
        const [part] = await reader.poll({ signal: stopping });
        stopping.throwIfAborted();
        const isFilled = part?.records.some(isOwn) ?? false;
        if (isFilled) filled.push(partition);
        isRead = part !== undefined && (isFilled || part.nextOffset >= end);
      }
    } catch (error) {
      if (!(error instanceof OffsetOutOfRangeError)) throw error;
      filled.push(partition);
    } finally {
      await reader.close();
    }
  }
  return filled;
}

/** What was committed is in nobody's hands any more: whoever goes on from before it makes the samples since then again. */
export const offsetsWentBack = (
  partition: number,
  committed: Readonly<Record<LogTopic, number>>,
  uri: string,
  ofSnapshot: Readonly<Record<LogTopic, number>>,
): StartRefusedError =>
  new StartRefusedError(
    `The committed offsets of partition ${partition} went back: they are ${offsetsText(committed)}, and ${uri}, written after its commit, has ${offsetsText(ofSnapshot)}. ` +
      'Either the broker that coordinates the group has lost commits, which restarting it brings back where its log has them, ' +
      'or somebody set them back: to give what came since a second sample, accept repeated samples with ONEMALL_ACCEPT_LOSS=missing-commits',
  );
const offsetsText = (offsets: Readonly<Record<LogTopic, number>>): string =>
  LOG_TOPICS.map((topic) => `${topic} ${offsets[topic]}`).join(', ');

/** Turns an offset that is gone into what an operator can do. */
export const missingOffset = (position: Position, needed: string, cause: unknown): StartRefusedError =>
  new StartRefusedError(
    `${position.topic} partition ${position.partition} no longer holds offset ${position.offset}, ${needed}: ${(cause as Error).message} ` +
      'Samples of the events between would be lost or lack labels. Raise retention.ms; to go on from the earliest retained record, ' +
      'accept the loss with ONEMALL_ACCEPT_LOSS=missing-offsets',
    { cause },
  );

const allPartitions = (numPartitions: number): { topic: TopicName; partition: number }[] =>
  LOG_TOPICS.flatMap((topic) =>
    Array.from({ length: numPartitions }, (_, partition) => ({ topic: topic as TopicName, partition })),
  );
