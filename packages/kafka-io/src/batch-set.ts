/** Records to write, gathered into batches by topic and partition. */
import { encodeValue } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import type { Brokers } from './brokers.ts';
import { BatchBuilder } from './data-plane/batch-builder.ts';
import { KafkaIoError } from './errors.ts';
import { partitionOf } from './murmur2.ts';
import type { AnyOutRecord, RecordBlock } from './ports.ts';
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
  blocks: readonly RecordBlock[] = [],
): Promise<PartitionBatches[]> {
  const topics = [...new Set([...records, ...blocks].map((r) => r.topic))];
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
    appendTo(intoOf(physical, partitions, partition), (builder) =>
      builder.append(key, value, record.timestampMs ?? nowMs),
    );
  }
  for (const block of blocks) {
    const { physical, partitions } = target.get(block.topic)!;
    gatherBlock(block, nowMs, physical, partitions);
  }
  return [...target.values()].flatMap((t) => t.partitions).filter((p) => p.builders.length > 0);
}

function intoOf(physical: string, partitions: PartitionBatches[], partition: number): PartitionBatches {
  const into = partitions[partition];
  if (!into)
    throw new KafkaIoError(
      `Expected a partition of ${physical} below ${partitions.length}, got ${partition}`,
    );
  return into;
}

/** Without an object or a function for each record. */
function gatherBlock(
  { bytes, count, partition, keyStart, keyLength, valueStart, valueEnd }: RecordBlock,
  nowMs: number,
  physical: string,
  partitions: PartitionBatches[],
): void {
  let into = partition === undefined ? undefined : intoOf(physical, partitions, partition);
  for (let i = 0; i < count; i++) {
    const keyAt = keyStart[i]!;
    const keyBytes = keyLength[i]!;
    const valueAt = valueStart[i]!;
    const valueBytes = valueEnd[i]! - valueAt;
    if (partition === undefined) {
      const key = Buffer.from(bytes.buffer, bytes.byteOffset + keyAt, keyBytes);
      into = intoOf(physical, partitions, partitionOf(key, partitions.length));
    }
    const { builders } = into!;
    const last = builders.at(-1);
    if (last?.appendFrom(bytes, keyAt, keyBytes, bytes, valueAt, valueBytes, nowMs)) continue;
    const builder = new BatchBuilder();
    builder.appendFrom(bytes, keyAt, keyBytes, bytes, valueAt, valueBytes, nowMs);
    builders.push(builder);
  }
}

function appendTo({ builders }: PartitionBatches, append: (builder: BatchBuilder) => boolean): void {
  const last = builders.at(-1);
  if (last && append(last)) return;
  const builder = new BatchBuilder();
  append(builder);
  builders.push(builder);
}
