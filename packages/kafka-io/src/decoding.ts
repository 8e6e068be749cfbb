/** Decodes what was fetched; bad records are set apart as dead letters, in order. */
import { BadRecordError, type TopicName } from '@onemall/contracts';
import type { OutRecord, RawRecord, TypedRecord } from './ports.ts';
import type { ValueCodec } from './value-codec.ts';

export interface Decoded<T extends TopicName> {
  good: TypedRecord<T>[];
  dead: { letter: OutRecord<'dead-letters'>; reason: string }[];
}

export async function decodeAll<T extends TopicName>(
  codec: ValueCodec,
  topic: T,
  records: readonly RawRecord[],
): Promise<Decoded<T>> {
  const good: TypedRecord<T>[] = [];
  const dead: Decoded<T>['dead'] = [];
  for (const record of records) {
    try {
      good.push(codec.decodeNow(topic, record) ?? (await codec.decode(topic, record)));
    } catch (error) {
      // Whatever is not the record's own fault goes up: a registry that is away never makes a dead letter.
      if (!(error instanceof BadRecordError)) throw error;
      dead.push({ letter: codec.deadLetter(record, error), reason: error.reason });
    }
  }
  return { good, dead };
}
