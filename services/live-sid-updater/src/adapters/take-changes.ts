import { BadRecordError } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo, RecordWriter } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { Rooms } from '../state/rooms.ts';

/** Gives fetched product changes to the rooms; what cannot be used goes to dead-letters. */
export async function takeChanges(
  fetched: readonly FetchedPartition[],
  parts: { kafka: KafkaIo; rooms: Rooms; writer: RecordWriter; meter: StageMeter; clock: Clock },
): Promise<void> {
  const { kafka, rooms, writer, meter, clock } = parts;
  for (const { records } of fetched) {
    meter.recordIn(records.length);
    for (const raw of records) {
      try {
        const { value, partition, offset, timestampMs } = await kafka.decode('live-product-changes', raw);
        if (!value) throw new BadRecordError('UNDECODABLE', 'A product change has no value');
        rooms.take({ partition, offset, appendedMs: timestampMs, change: value }, clock.nowMs());
      } catch (error) {
        if (!(error instanceof BadRecordError)) throw error;
        await writer.send([kafka.deadLetter(raw, error)]);
        meter.recordDeadLetter(error.reason);
      }
    }
  }
}
