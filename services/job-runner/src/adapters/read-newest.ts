import { BadRecordError, type TopicName, type TopicValues } from '@onemall/contracts';
import { type KafkaIo, OffsetOutOfRangeError, type Position } from '@onemall/kafka-io';

const EARLIEST = -2;

/**
 * About the newest `maxRecords` values of a topic, an equal part of each partition, up to its end as of now. Bad records
 * are left out: the services that consume the topic report them.
 */
export async function readNewest<T extends TopicName>(
  kafka: KafkaIo,
  topic: T,
  maxRecords: number,
): Promise<TopicValues[T][]> {
  const reader = await kafka.openReader();
  try {
    const ends = await kafka.endOffsets(topic);
    const part = Math.ceil(maxRecords / ends.length);
    const left = new Map(ends.filter((end) => end.offset > 0).map((end) => [end.partition, end.offset]));
    const start = (offsetOf: (end: Position) => number): Promise<void> =>
      reader.assign(ends.filter((end) => end.offset > 0).map((end) => ({ ...end, offset: offsetOf(end) })));
    await start((end) => Math.max(0, end.offset - part));
    const values: TopicValues[T][] = [];
    while (left.size > 0) {
      const fetched = await reader.poll().catch(async (error: unknown) => {
        // The part asked for reaches back behind what is retained.
        if (!(error instanceof OffsetOutOfRangeError)) throw error;
        values.length = 0;
        await start(() => EARLIEST);
        return [];
      });
      for (const { partition, records, nextOffset, lastStableOffset } of fetched) {
        for (const record of records) {
          try {
            const { value } = await kafka.decode(topic, record);
            if (value !== null) values.push(value);
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
    return values;
  } finally {
    await reader.close();
  }
}
