import { BadRecordError, type TopicName, type TopicValues } from '@onemall/contracts';
import { type KafkaIo, OffsetOutOfRangeError, type Position } from '@onemall/kafka-io';

const EARLIEST = -2;

/**
 * Gives about the newest `maxRecords` values of a topic, an equal part of each partition, up to its end as of now, to
 * `take` one by one. Bad records are left out: the services that consume the topic report them.
 * @param restart called when a part that was begun is gone and all is read anew from the earliest record
 */
export async function scanNewest<T extends TopicName>(
  kafka: KafkaIo,
  topic: T,
  maxRecords: number,
  take: (value: TopicValues[T]) => void,
  restart: () => void,
): Promise<void> {
  const reader = await kafka.openReader();
  try {
    const ends = await kafka.endOffsets(topic);
    const part = Math.ceil(maxRecords / ends.length);
    const left = new Map(ends.filter((end) => end.offset > 0).map((end) => [end.partition, end.offset]));
    const start = (offsetOf: (end: Position) => number): Promise<void> =>
      reader.assign(ends.filter((end) => end.offset > 0).map((end) => ({ ...end, offset: offsetOf(end) })));
    await start((end) => Math.max(0, end.offset - part));
    while (left.size > 0) {
      const fetched = await reader.poll().catch(async (error: unknown) => {
        // The part asked for reaches back behind what is retained.
        if (!(error instanceof OffsetOutOfRangeError)) throw error;
        restart();
        await start(() => EARLIEST);
        return [];
      });
      for (const { partition, records, nextOffset, lastStableOffset } of fetched) {
        for (const record of records) {
          try {
            const { value } = await kafka.decode(topic, record);
            if (value !== null) take(value);
          } catch (error) {
            if (!(error instanceof BadRecordError)) throw error;
          }
        }
        // An open transaction ends the readable part before the end that was asked for.
        const end = Math.min(left.get(partition) ?? 0, lastStableOffset);
        if (nextOffset >= end) {
          left.delete(partition);
          reader.unassign([{ topic, partition }]);
        }
      }
    }
  } finally {
    await reader.close();
  }
}

/** The same values as a list. */
export async function readNewest<T extends TopicName>(
  kafka: KafkaIo,
  topic: T,
  maxRecords: number,
): Promise<TopicValues[T][]> {
  const values: TopicValues[T][] = [];
  const restart = (): void => {
    values.length = 0;
  };
  await scanNewest(kafka, topic, maxRecords, (value) => values.push(value), restart);
  return values;
}
