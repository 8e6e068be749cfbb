/** Finds in the logs everything that has to do with one exposure. */
import { BadRecordError, type TopicName, type TopicValues } from '@onemall/contracts';
import type { KafkaIo, Position, RawRecord } from '@onemall/kafka-io';

export interface Found<T extends TopicName = TopicName> {
  topic: T;
  partition: number;
  offset: number;
  appendTimeMs: number;
  value: TopicValues[T];
}
export interface Committed {
  offset: number;
  watermarkMs: number;
}

export interface Findings {
  partition: number;
  /** Its record and any copies, in offset order. */
  exposures: Found<'exposures'>[];
  /** The user's exposures of the same item: last touch chooses among them. */
  rivals: Found<'exposures'>[];
  /** Actions that name the exposure, or name none and are of its user and item. */
  actions: (Found<'clicks'> | Found<'buys'>)[];
  samples: Found<'training-samples'>[];
  late: Found<'late-events'>[];
  dead: Found<'dead-letters'>[];
  /** By topic of the logs; offset -1 where nothing was committed yet. */
  committed: Record<'exposures' | 'clicks' | 'buys', Committed>;
}

export const LOGS = ['exposures', 'clicks', 'buys'] as const;
const MAX_BYTES = 8 << 20;

/** Records of a topic whose bytes `mayMatch` and whose value `matches`; undecodable ones are passed over. */
async function find<T extends TopicName>(
  io: KafkaIo,
  topic: T,
  partition: number | null,
  mayMatch: (record: RawRecord) => boolean,
  matches: (value: TopicValues[T]) => boolean,
): Promise<Found<T>[]> {
  const ends = (await io.endOffsets(topic)).filter(
    (end) => end.offset > 0 && (partition === null || end.partition === partition),
  );
  const missing = new Map(ends.map((end) => [end.partition, end.offset]));
  const found: Found<T>[] = [];
  const reader = await io.openReader();
  try {
    await reader.assign(ends.map((end) => ({ ...end, offset: -2 })));
    while (missing.size > 0)
      for (const part of await reader.poll({ maxWaitMs: 500, maxBytesPerPartition: MAX_BYTES })) {
        const end = missing.get(part.partition);
        if (end === undefined) continue;
        for (const raw of part.records) {
          if (!mayMatch(raw)) continue;
          const value = await decoded(io, topic, raw);
          if (value && matches(value))
            found.push({
              topic,
              partition: raw.partition,
              offset: raw.offset,
              appendTimeMs: raw.timestampMs,
              value,
            });
        }
        // An open transaction keeps what lies behind it out of sight; what came before it is told.
        if (part.nextOffset >= Math.min(end, part.lastStableOffset)) {
          missing.delete(part.partition);
          reader.unassign([part]);
        }
      }
  } finally {
    await reader.close();
  }
  return found;
}

async function decoded<T extends TopicName>(
  io: KafkaIo,
  topic: T,
  raw: RawRecord,
): Promise<TopicValues[T] | null> {
  try {
    return (await io.decode(topic, raw)).value;
  } catch (error) {
    if (error instanceof BadRecordError) return null;
    throw error;
  }
}

/** @returns null where no retained exposure has the id */
export async function collect(io: KafkaIo, groupId: string, exposureId: string): Promise<Findings | null> {
  const id = Buffer.from(exposureId);
  const holdsId = ({ value }: RawRecord): boolean => value?.includes(id) ?? false;
  const exposures = await find(io, 'exposures', null, holdsId, (v) => v.exposureId === exposureId);
  const first = exposures[0];
  if (!first) return null;
  const { partition } = first;
  const { userId, itemId } = first.value;
  const ofUser = ({ key, value }: RawRecord): boolean =>
    (key?.equals(Buffer.from(userId)) ?? false) || (value?.includes(id) ?? false);
  const isItsAction = (v: TopicValues['clicks']): boolean =>
    v.exposureId === exposureId || (v.exposureId === null && v.userId === userId && v.itemId === itemId);
  const [rivals, clicks, buys, samples] = await Promise.all([
    find(io, 'exposures', partition, ofUser, (v) => v.userId === userId && v.itemId === itemId),
    find(io, 'clicks', partition, ofUser, isItsAction),
    find(io, 'buys', partition, ofUser, isItsAction),
    find(io, 'training-samples', null, holdsId, (v) => v.exposure.exposureId === exposureId),
  ]);
  const actions = [...clicks, ...buys];
  const places = new Set([...exposures, ...rivals, ...actions].map(place));
  const [late, dead] = await Promise.all([
    find(
      io,
      'late-events',
      null,
      () => true,
      (v) => places.has(place(v)),
    ),
    find(
      io,
      'dead-letters',
      null,
      () => true,
      (v) => places.has(place(v)),
    ),
  ]);
  const positions = await io.committed(
    groupId,
    LOGS.map((topic) => ({ topic, partition })),
    { settled: false },
  );
  return {
    partition,
    exposures,
    rivals,
    actions,
    samples,
    late,
    dead,
    committed: {
      exposures: committedOf(positions, 'exposures'),
      clicks: committedOf(positions, 'clicks'),
      buys: committedOf(positions, 'buys'),
    },
  };
}

export const place = (at: { topic: string; partition: number; offset: number }): string =>
  `${at.topic} ${at.partition} ${at.offset}`;

function committedOf(positions: readonly Position[], topic: string): Committed {
  const position = positions.find((p) => p.topic === topic);
  return {
    offset: position?.offset ?? -1,
    watermarkMs: Number(position?.metadata?.split(',')[0] || 0),
  };
}
