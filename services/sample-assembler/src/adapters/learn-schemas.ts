/** Asks for the schemas of fetched records, so that reading them never has to wait. */
import { WIRE_HEADER_BYTES } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo } from '@onemall/kafka-io';

/** Waits where the registry must be asked and is away: a failure of others never makes a dead letter. */
export async function learnSchemas(
  io: Pick<KafkaIo, 'isOwnSchema' | 'learnSchema'>,
  fetched: FetchedPartition,
): Promise<void> {
  let known = -1;
  for (const record = fetched.cursor(); record.next(); ) {
    const { bytes, valueStart } = record;
    if (record.valueLength < WIRE_HEADER_BYTES || bytes[valueStart] !== 0) continue;
    const schemaId = bytes.readUInt32BE(valueStart + 1);
    if (schemaId === known) continue;
    if (io.isOwnSchema(fetched.topic, schemaId) === undefined) await io.learnSchema(fetched.topic, schemaId);
    known = schemaId;
  }
}
