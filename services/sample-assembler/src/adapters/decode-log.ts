/** Turns fetched records of the three logs into events, or into bad input with its reason. */
import { BadRecordError } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo, RawRecord } from '@onemall/kafka-io';
import type { LogRecord, LogTopic } from '../stages/log-record.ts';

/** Waits where the registry must be asked and is away: a failure of others never makes a dead letter. */
export async function decodeLog(
  io: Pick<KafkaIo, 'decode'>,
  fetched: FetchedPartition,
): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  for (const raw of fetched.records) records.push(await decodeRecord(io, raw));
  return records;
}

async function decodeRecord(io: Pick<KafkaIo, 'decode'>, raw: RawRecord): Promise<LogRecord> {
  const topic = raw.topic as LogTopic;
  // Copies: what waits or is reported outlives the fetched batch.
  const source = {
    partition: raw.partition,
    offset: raw.offset,
    appendTimeMs: raw.timestampMs,
    payload: raw.value && Buffer.from(raw.value),
  };
  try {
    const { value } = await io.decode(topic, raw);
    if (value === null)
      throw new BadRecordError('NOT_WIRE_FORMAT', `Expected a value in ${topic}, got a tombstone`);
    return { ...source, topic, event: value } as LogRecord;
  } catch (error) {
    if (!(error instanceof BadRecordError)) throw error;
    return {
      ...source,
      topic,
      event: null,
      key: raw.key && Buffer.from(raw.key),
      bad: { reason: error.reason, detail: error.message },
    };
  }
}
