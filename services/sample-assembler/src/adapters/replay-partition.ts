/**
 * Rebuilds the state of a partition from the log: everything below the committed offsets is fed once more with the
 * output closed. Before the restore offsets only histories need the records.
 */
import { type KafkaIo, type LogReader, OffsetOutOfRangeError, type Position } from '@onemall/kafka-io';
import type { Loss } from '../config.ts';
import type { PartitionJoin } from '../stages/join-partition.ts';
import { LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';
import { type EventReader, isBad } from '../stages/read-event.ts';
import type { InputMerge } from '../stages/take-in-order.ts';
import { learnSchemas } from './learn-schemas.ts';
import { missingOffset } from './start-checks.ts';

/** As an offset: the first record that a log still holds. */
export const EARLIEST = -2;
const MAX_WAIT_MS = 500;
/** An offset at the end of the log has no record to answer with: the broker would hold the probe for all of this. */
const PROBE_WAIT_MS = 20;

export interface ReplayRange {
  partition: number;
  /** Where to begin. */
  from: Readonly<Record<LogTopic, number>>;
  /** First offsets that the join needs again; what lies before them is remembered for histories. */
  restore: Readonly<Record<LogTopic, number>>;
  /** The committed offsets. */
  end: Readonly<Record<LogTopic, number>>;
}

/** @returns the number of records read. @throws StartRefusedError where needed offsets are no longer retained */
export async function replayPartition(
  io: Pick<KafkaIo, 'openReader' | 'isOwnSchema' | 'learnSchema'>,
  range: ReplayRange,
  events: EventReader,
  join: PartitionJoin,
  merge: InputMerge,
  options: { acceptLoss: readonly Loss[]; nowMs: () => number; stopping: AbortSignal },
): Promise<number> {
  const reader = await io.openReader();
  try {
    let { from } = range;
    if (!options.acceptLoss.includes('missing-offsets')) await checkRetained(reader, range, options.stopping);
    else from = await earliestWhereGone(reader, range.partition, from, options.stopping);
    return await replayAll(io, reader, { ...range, from }, events, join, merge, options);
  } finally {
    await reader.close();
  }
}

async function checkRetained(
  reader: LogReader,
  { partition, restore, end }: ReplayRange,
  stopping: AbortSignal,
): Promise<void> {
  for (const topic of LOG_TOPICS) {
    const position: Position = { topic, partition, offset: Math.min(restore[topic], end[topic]) };
    const error = await whyNotRetained(reader, position, stopping);
    if (error) throw missingOffset(position, 'which the join needs to go on exactly', error);
  }
}

/** Waits while the partition has no leader. @returns null where the log still holds the offset */
export async function whyNotRetained(
  reader: LogReader,
  position: Position,
  stopping: AbortSignal,
): Promise<OffsetOutOfRangeError | null> {
  await reader.assign([position]);
  try {
    const options = { maxWaitMs: PROBE_WAIT_MS, maxBytesPerPartition: 1024, signal: stopping };
    while ((await reader.poll(options)).length === 0) stopping.throwIfAborted();
    return null;
  } catch (error) {
    if (error instanceof OffsetOutOfRangeError) return error;
    throw error;
  } finally {
    reader.unassign([position]);
  }
}

/** The offsets, and the beginning of each log that no longer holds its own. */
export async function earliestWhereGone(
  reader: LogReader,
  partition: number,
  offsets: Readonly<Record<LogTopic, number>>,
  stopping: AbortSignal,
): Promise<Record<LogTopic, number>> {
  const found = { ...offsets };
  for (const topic of LOG_TOPICS)
    if (await whyNotRetained(reader, { topic, partition, offset: offsets[topic] }, stopping))
      found[topic] = EARLIEST;
  return found;
}

async function replayAll(
  io: Pick<KafkaIo, 'isOwnSchema' | 'learnSchema'>,
  reader: LogReader,
  { partition, from, restore, end }: ReplayRange,
  events: EventReader,
  join: PartitionJoin,
  merge: InputMerge,
  { nowMs, stopping }: { nowMs: () => number; stopping: AbortSignal },
): Promise<number> {
  let numRead = 0;
  const missing = new Set<LogTopic>(LOG_TOPICS.filter((topic) => end[topic] > Math.max(0, from[topic])));
  await reader.assign([...missing].map((topic) => ({ topic, partition, offset: from[topic] })));
  while (missing.size > 0) {
    stopping.throwIfAborted();
    for (const fetched of await reader.poll({ maxWaitMs: MAX_WAIT_MS, signal: stopping })) {
      const topic = fetched.topic as LogTopic;
      await learnSchemas(io, fetched);
      stopping.throwIfAborted();
      const takenAtMs = nowMs();
      for (const record = fetched.cursor(); record.next() && record.offset < end[topic]; numRead++) {
        const event = events.read(topic, record);
        if (isBad(event)) {
          if (record.offset >= restore[topic]) join.feedBad(event);
          continue;
        }
        if (record.offset < restore[topic]) join.remember(event);
        else join.feed(event);
        merge.taken(topic, event.timeMs, takenAtMs);
      }
      fetched.release();
      if (fetched.nextOffset >= end[topic]) {
        missing.delete(topic);
        reader.unassign([{ topic, partition }]);
      }
    }
  }
  return numRead;
}
