/** Reads what Kafka retains into tables of an embedded ClickHouse, one row for each record. */
import { createHash } from 'node:crypto';
import type { ClickHouseClient } from '@clickhouse/client';
import { BadRecordError, type TopicName, type TopicValues } from '@onemall/contracts';
import type { KafkaIo, RawRecord, TransactionEnd, TypedRecord } from '@onemall/kafka-io';
import { visibleTimes } from './visible-times.ts';

type Row = Record<string, unknown>;
type RecordSource = Pick<RawRecord, 'topic' | 'partition' | 'offset' | 'timestampMs'>;

export const LOGS = ['exposures', 'clicks', 'buys'] as const;

/** Longer than a broker lets the transaction of a dead owner stay open. */
const STALL_MS = 120_000;

/** Inserted at once: a sample with its histories is some kilobytes, here, as JSON and in the database. */
const ROWS_AT_ONCE = 4_000;

const md5 = (text: string): string => createHash('md5').update(text).digest('hex');

interface ReadRecord<T extends TopicName> {
  raw: RawRecord;
  typed: TypedRecord<T> | null;
  error: BadRecordError | null;
  /** -1 outside a transaction. */
  producerId: number;
}

/**
 * Everything that was in the topic at this call, in offset order for each partition.
 * @throws Error where nothing more comes: a transaction there stays open
 */
export async function* readTopic<T extends TopicName>(
  io: Pick<KafkaIo, 'endOffsets' | 'openReader' | 'decode'>,
  topic: T,
  {
    onEnds = () => {},
    stallMs = STALL_MS,
  }: { onEnds?: (partition: number, ends: readonly TransactionEnd[]) => void; stallMs?: number } = {},
): AsyncGenerator<ReadRecord<T>> {
  const ends = (await io.endOffsets(topic)).filter((end) => end.offset > 0);
  const missing = new Map(ends.map((end) => [end.partition, end.offset]));
  const reader = await io.openReader();
  try {
    await reader.assign(ends.map(({ partition }) => ({ topic, partition, offset: -2 })));
    const reached = new Map<number, number>();
    let lastMs = performance.now();
    while (missing.size > 0) {
      if (performance.now() - lastMs > stallMs) throw stalled(topic, stallMs, reached, missing);
      for (const fetched of await reader.poll({ maxWaitMs: 200 })) {
        // At the end of what is committed answers come, too, only none gets further.
        if (fetched.nextOffset > (reached.get(fetched.partition) ?? -1)) lastMs = performance.now();
        reached.set(fetched.partition, fetched.nextOffset);
        const end = missing.get(fetched.partition);
        if (end === undefined) continue;
        onEnds(fetched.partition, fetched.ends);
        const cursor = fetched.cursor();
        for (const raw of fetched.records) {
          cursor.next();
          const { producerId } = cursor;
          if (raw.offset >= end) break;
          try {
            yield { raw, typed: await io.decode(topic, raw), error: null, producerId };
          } catch (error) {
            if (!(error instanceof BadRecordError)) throw error;
            yield { raw, typed: null, error, producerId };
          }
        }
        // Committed transactions end with markers, so the position counts and not the last record.
        if (fetched.nextOffset >= end) missing.delete(fetched.partition);
      }
    }
  } finally {
    await reader.close();
  }
}

function stalled(
  topic: TopicName,
  stallMs: number,
  reached: ReadonlyMap<number, number>,
  missing: ReadonlyMap<number, number>,
): Error {
  const places = [...missing].map(
    ([partition, end]) =>
      `partition ${partition} at offset ${reached.get(partition) ?? 'of its start'} of ${end}`,
  );
  return new Error(
    `Nothing more of ${topic} could be read for ${stallMs / 1000} s: ${places.join(', ')}. A transaction there stays open: kafka-transactions.sh find-hanging names it`,
  );
}

class Inserts {
  readonly #db: ClickHouseClient;
  readonly #table: string;
  #rows: Row[] = [];
  constructor(db: ClickHouseClient, table: string) {
    this.#db = db;
    this.#table = table;
  }
  async add(row: Row): Promise<void> {
    if (this.#rows.push(row) >= ROWS_AT_ONCE) await this.flush();
  }
  async flush(): Promise<void> {
    const values = this.#rows;
    this.#rows = [];
    if (values.length > 0) await this.#db.insert({ table: this.#table, values, format: 'JSONEachRow' });
  }
}

async function dump<T extends TopicName>(
  io: KafkaIo,
  db: ClickHouseClient,
  topic: T,
  table: string,
  toRow: (value: TopicValues[T], raw: RawRecord, key: string) => Row | null,
  onBad?: (raw: RawRecord, error: BadRecordError) => Promise<void>,
): Promise<void> {
  const inserts = new Inserts(db, table);
  for await (const { raw, typed, error } of readTopic(io, topic)) {
    if (error) await onBad?.(raw, error);
    else if (typed?.value) {
      const row = toRow(typed.value, raw, typed.key);
      if (row) await inserts.add(row);
    }
  }
  await inserts.flush();
}

/** A topic that is read as a table: tombstones are rows too, and each row knows when it was visible to readers. */
async function dumpTable<T extends TopicName>(
  io: KafkaIo,
  db: ClickHouseClient,
  topic: T,
  table: string,
  toRow: (value: TopicValues[T] | null, raw: RawRecord, key: string) => Row,
): Promise<void> {
  const ends = new Map<number, TransactionEnd[]>();
  const rows: { row: Row; partition: number; offset: number; timestampMs: number; producerId: number }[] = [];
  const read = readTopic(io, topic, {
    onEnds: (partition, more) => {
      ends.set(partition, [...(ends.get(partition) ?? []), ...more]);
    },
  });
  for await (const { raw, typed, producerId } of read)
    if (typed) {
      const { partition, offset, timestampMs } = raw;
      rows.push({ row: toRow(typed.value, raw, typed.key), partition, offset, timestampMs, producerId });
    }
  const inserts = new Inserts(db, table);
  for (const [partition, mine] of Map.groupBy(rows, (r) => r.partition)) {
    const visible = visibleTimes(mine, ends.get(partition) ?? []);
    for (const [i, { row }] of mine.entries()) await inserts.add({ ...row, visible: visible[i]! });
  }
  await inserts.flush();
}

export async function dumpAll(io: KafkaIo, db: ClickHouseClient): Promise<void> {
  const undecodable = new Inserts(db, 'undecodable');
  const onBad = (raw: RawRecord, error: BadRecordError): Promise<void> =>
    undecodable.add({ topic: raw.topic, part: raw.partition, off: raw.offset, reason: error.reason });
  const logs = LOGS.map((topic) =>
    dump(io, db, topic, 'events', (v, raw, key) => eventRow(v, raw, key), onBad),
  );
  await Promise.all([
    ...logs,
    dump(io, db, 'late-events', 'late', lateRow),
    dump(io, db, 'dead-letters', 'dead', (v) =>
      v.service === 'sample-assembler'
        ? { topic: v.topic, part: v.partition, off: v.offset, reason: v.reason }
        : null,
    ),
    dump(io, db, 'training-samples', 'samples', sampleRow),
    // An item or SID that is gone ends at the time of its tombstone.
    dumpTable(io, db, 'items', 'items', (v, { offset, timestampMs }, key) => ({
      itemId: v?.itemId ?? key,
      validFrom: v?.validFromMs ?? timestampMs,
      seq: offset,
      ts: timestampMs,
      ...(v && {
        category: v.category,
        facts: JSON.stringify([v.category, v.tags, v.priceCents, v.sellerId, v.validFromMs]),
      }),
    })),
    dumpTable(io, db, 'item-sids', 'sids', (v, raw, key) => ({
      ...sidRow(raw, key),
      ...(v && { validFrom: v.validFromMs, sid: sidText(v.sid), selling: '[]' }),
    })),
    dumpTable(io, db, 'live-sids', 'sids', (v, raw, key) => ({
      ...sidRow(raw, key),
      ...(v && {
        validFrom: v.validFromMs,
        sid: v.sid ? sidText(v.sid) : '',
        selling: JSON.stringify(v.sellingItemIds),
      }),
    })),
  ]);
  await undecodable.flush();
}

/** The key says which item or room, and of which codebook version. */
const sidRow = ({ topic, offset, timestampMs }: RawRecord, key: string): Row => ({
  id: key.slice(0, key.lastIndexOf(':')),
  live: topic === 'live-sids' ? 1 : 0,
  version: Number(key.slice(key.lastIndexOf(':') + 1)),
  validFrom: timestampMs,
  seq: offset,
  ts: timestampMs,
});

const sidText = (sid: {
  scenario: string;
  codebookVersion: number;
  c1: number;
  c2: number;
  c3: number;
}): string => JSON.stringify([sid.scenario, sid.codebookVersion, sid.c1, sid.c2, sid.c3]);

export function eventRow(
  value: TopicValues['exposures'] | TopicValues['clicks'] | TopicValues['buys'],
  raw: RecordSource,
  key: string,
): Row {
  const source = {
    topic: raw.topic,
    part: raw.partition,
    off: raw.offset,
    append: raw.timestampMs,
    key,
    userId: value.userId,
    itemId: value.itemId,
    t: value.eventTimeMs,
  };
  if ('requestId' in value)
    return {
      ...source,
      id: value.exposureId,
      exposureId: value.exposureId,
      scenario: value.scenario,
      requestId: value.requestId,
      r: value.requestTimeMs,
      price: value.priceCents,
      least: Math.min(value.position, value.watchMs ?? 0),
      finite: value.requestFeatures.floats.every(Number.isFinite) ? 1 : 0,
      body: md5(JSON.stringify(value)),
    };
  return {
    ...source,
    id: value.actionId,
    exposureId: value.exposureId,
    ...('quantity' in value && { price: value.priceCents, quantity: value.quantity }),
  };
}

export const lateRow = (v: TopicValues['late-events']): Row => ({
  topic: v.topic,
  part: v.partition,
  off: v.offset,
  reason: v.reason,
  w: v.watermarkMs,
});

export function sampleRow(v: TopicValues['training-samples'], raw: RecordSource): Row {
  const list = (events: readonly { itemId: string; eventTimeMs: number; category: string }[]): string[] =>
    events.map((e) => `${e.itemId}@${e.eventTimeMs}@${e.category}`);
  return {
    part: raw.partition,
    off: raw.offset,
    ts: raw.timestampMs,
    kind: v.kind,
    exposureId: v.exposure.exposureId,
    userId: v.exposure.userId,
    itemId: v.exposure.itemId,
    requestId: v.exposure.requestId,
    r: v.exposure.requestTimeMs,
    body: md5(JSON.stringify(v.exposure)),
    firstPositive: v.firstPositive,
    clicked: v.clicked,
    clickDelay: v.clickDelayMs,
    bought: v.bought,
    buyDelay: v.buyDelayMs,
    buyValue: v.buyValueCents,
    buyQuantity: v.buyQuantity,
    sid: v.sid ? sidText(v.sid) : '',
    item: v.item
      ? JSON.stringify([v.item.category, v.item.tags, v.item.priceCents, v.item.sellerId, v.item.validFromMs])
      : '',
    selling: JSON.stringify(v.item?.sellingItemIds ?? []),
    hExposures: list(v.history.exposures),
    hClicks: list(v.history.clicks),
    hBuys: list(v.history.buys),
    w: v.watermarkMs,
  };
}
