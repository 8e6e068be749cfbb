import { BadRecordError } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo, RecordWriter } from '@onemall/kafka-io';
import type { Clock, StageMeter } from '@onemall/service-kit';
import { checkChange } from '../stages/check-input.ts';
import { refusal, type UpdaterState } from '../state/updater-state.ts';

/** Gives fetched product changes to the rooms; what cannot be used goes to dead-letters. */
export async function takeChanges(
  fetched: readonly FetchedPartition[],
  parts: {
    kafka: KafkaIo;
    state: UpdaterState;
    writer: RecordWriter;
    meter: StageMeter;
    clock: Clock;
    allowedClockSkewMs: number;
    /** False where live rooms are no configured scenario: their changes are read and left. */
    withRooms: boolean;
  },
): Promise<void> {
  const { kafka, state, writer, meter, clock } = parts;
  for (const { records } of fetched) {
    meter.recordIn(records.length);
    if (!parts.withRooms) continue;
    for (const raw of records) {
      try {
        const { key, value, partition, offset, timestampMs } = await kafka.decode(
          'live-product-changes',
          raw,
        );
        if (!value) throw new BadRecordError('UNDECODABLE', 'A product change has no value');
        const nowMs = clock.nowMs();
        checkChange(key, value, nowMs + parts.allowedClockSkewMs);
        state.rooms.take({ partition, offset, appendedMs: timestampMs, change: value }, nowMs);
      } catch (error) {
        const { reason, message } = refusal(error);
        await writer.send([kafka.deadLetter(raw, { reason, message })]);
        meter.recordDeadLetter(reason);
      }
    }
  }
}
