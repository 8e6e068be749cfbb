/** Records to write, gathered into batches by topic and partition. */
import { encodeValue } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import type { Brokers } from './brokers.ts';
import { BatchBuilder } from './data-plane/batch-builder.ts';
import { KafkaIoError } from './errors.ts';
import { partitionOf } from './murmur2.ts';
import type { AnyOutRecord } from './ports.ts';
import type { TopicNames } from './topic-names.ts';
import type { ValueCodec } from './value-codec.ts';

/** The batches of one partition, in the order in which they must be written. */
export interface PartitionBatches {
  topic: string;
  partition: number;
  builders: BatchBuilder[];
}

export interface Encoding {
  brokers: Brokers;
  names: TopicNames;
  codec: ValueCodec;
  clock: Clock;
}

export async function gatherBatches(
  records: readonly AnyOutRecord[],
  { brokers, names, codec, clock }: Encoding,
): Promise<PartitionBatches[]> {
  const topics = [...new Set(records.map((r) => r.topic))];
  await brokers.use(topics.map((t) => names.physical(t)));
  const target = new Map<string, { physical: string; schemaId: number; partitions: PartitionBatches[] }>();
  for (const topic of topics) {
    const typed = records.some((r) => r.topic === topic && 'value' in r && r.value !== null);
    const physical = names.physical(topic);
    target.set(topic, {
      physical,
      schemaId: typed ? await codec.schemaId(topic) : -1,
      partitions: Array.from({ length: brokers.numPartitions(physical) }, (_, partition) => ({
        topic: physical,
        partition,
        builders: [],
      })),
    });
  }
  const nowMs = clock.nowMs();
  for (const record of records) {
    const { physical, schemaId, partitions } = target.get(record.topic)!;
    const key = typeof record.key === 'string' ? Buffer.from(record.key) : record.key;
    const value =
      'valueBytes' in record
        ? record.valueBytes
        : record.value === null
          ? null
          : encodeValue(record.topic, schemaId, record.value);
    const partition = record.partition ?? partitionOf(key ?? Buffer.alloc(0), partitions.length);
    const into = partitions[partition];
    if (!into)
      throw new KafkaIoError(
        `Expected a partition of ${physical} below ${partitions.length}, got ${partition}`,
      );
    const timestampMs = record.timestampMs ?? nowMs;
    if (into.builders.at(-1)?.append(key, value, timestampMs)) continue;
    const builder = new BatchBuilder();
    builder.append(key, value, timestampMs);
    into.builders.push(builder);
  }
  return [...target.values()].flatMap((t) => t.partitions).filter((p) => p.builders.length > 0);
}
