/**
 * consumes        a topic of others: JSON or Avro values, any key
 * produces        items, exposures, clicks, buys, keyed by UTF-8 ids; dead-letters for records that no mapping fits
 * waits for       new records
 * is unblocked by a fetch; without follow it ends at the offsets that were the end at its start
 * commits when    records and the source's offsets are in one transaction: exactly once through crashes
 */
import { BadRecordError } from '@onemall/contracts';
import {
  externalTopic,
  FencedError,
  type FetchedPartition,
  type KafkaIo,
  type OutRecord,
  type Position,
  type RawRecord,
  TransactionFailedError,
} from '@onemall/kafka-io';
import { SeededRandom, type ServiceContext } from '@onemall/service-kit';
import type { BadRows } from './adapters/bad-rows.ts';
import { ForeignValues } from './adapters/foreign-values.ts';
import { type Mapping, mappedColumns } from './mapping.ts';
import { rowConverter } from './stages/convert-row.ts';
import { convertSession } from './stages/convert-session.ts';
import { deriveItem } from './stages/derive-item.ts';
import type { LogEvent } from './stages/events.ts';
import { type LogRow, RowError, type RowMapper, rowMapper } from './stages/map-row.ts';

const MAX_WAIT_MS = 500;

export interface FollowOptions {
  io: KafkaIo;
  context: ServiceContext;
  mapping: Mapping;
  /** Full name of the topic. */
  source: string;
  follow: boolean;
  badRows: BadRows;
}

/** Resolves when stopped, or at the end without `follow`. @throws FencedError when another replay took over */
export async function followTopic(options: FollowOptions): Promise<void> {
  const { io, context, source } = options;
  const { stopping, meter, log } = context;
  const topic = externalTopic(source);
  const groupId = `${io.options.namespace}.replay`;
  const writer = await io.openTransactionalWriter(`${io.options.namespace}.replay-${source}`);
  const reader = await io.openReader();
  const ends = await io.endOffsets(topic);
  let convert = recordConverter(options);

  /** Fences an older owner, then goes on from what is committed. */
  const restore = async (): Promise<Map<number, number>> => {
    await writer.init();
    const committed = await io.committed(groupId, ends);
    const starts = committed.map((p): Position => ({ ...p, offset: p.offset < 0 ? -2 : p.offset }));
    await reader.assign(starts);
    return new Map(starts.map((p) => [p.partition, Math.max(0, p.offset)]));
  };
  let reached = await restore();
  try {
    while (!stopping.aborted) {
      if (!options.follow && ends.every((e) => reached.get(e.partition)! >= e.offset)) break;
      const fetched = await reader
        .poll({ maxWaitMs: MAX_WAIT_MS, signal: stopping })
        .catch((error: unknown) => {
          if (stopping.aborted) return [];
          throw error;
        });
      const moved = fetched.filter((f) => f.nextOffset > reached.get(f.partition)!);
      if (moved.length === 0) continue;
      const records = await convert(moved);
      try {
        await writer.commit({
          records,
          offsets: {
            groupId,
            positions: moved.map((f) => ({ topic, partition: f.partition, offset: f.nextOffset })),
          },
        });
      } catch (error) {
        if (error instanceof FencedError || !(error instanceof TransactionFailedError)) throw error;
        log.warn({ err: error }, 'transaction failed: going on from the committed offsets');
        reached = await restore();
        // it remembers items as written that are not
        convert = recordConverter(options);
        continue;
      }
      for (const f of moved) reached.set(f.partition, f.nextOffset);
      meter.recordIn(moved.reduce((sum, f) => sum + f.records.length, 0));
      meter.recordOut(records.length);
      meter.setLag(fetched.reduce((sum, f) => sum + Math.max(0, f.highWatermark - f.nextOffset), 0));
    }
  } finally {
    await reader.close();
    await writer.close();
  }
  meter.set('done', 1, '1 at the end of the topic');
}

/** Fetched records as records to write, items before the events that name them. */
function recordConverter(options: FollowOptions): (fetched: FetchedPartition[]) => Promise<OutRecord[]> {
  const { io, context, mapping, source, badRows } = options;
  const { config, clock, meter } = context;
  const values = new ForeignValues((id) => io.schemaOf(id));
  const separator = mapping.impressions?.separator ?? '|';
  const columns = mappedColumns(mapping);
  const map = rowMapper(mapping, () => clock.nowMs() + config.allowedClockSkewMs);
  const convertRow = rowConverter(mapping, new SeededRandom(config.seed));
  const seen = new Set<string>();

  const toEvents = (row: LogRow): LogEvent[] => {
    if (!mapping.impressions) return convertRow(row);
    const { events, bad, withoutList } = convertSession([row], mapping);
    if (withoutList > 0) meter.add('actions_without_list', withoutList);
    if (bad[0]) throw bad[0].error;
    return events;
  };
  const toRow = async (record: RawRecord): Promise<LogRow> => {
    if (!record.value) throw new BadRecordError('UNDECODABLE', 'Expected a value, got a tombstone');
    const cells = await values.cells(record.value, separator);
    // a field that is not sent is an empty cell; only a record with none of them is of another kind
    if (!columns.some((c) => c in cells))
      throw new BadRecordError('UNDECODABLE', `Expected fields ${columns.join(', ')}`);
    return mapRecord(map, cells, record);
  };

  return async (fetched) => {
    const records: OutRecord[] = [];
    for (const { records: raw } of fetched)
      for (const record of raw) {
        try {
          const row = await toRow(record);
          for (const event of toEvents(row)) {
            if (!seen.has(event.value.itemId)) {
              seen.add(event.value.itemId);
              const item = deriveItem(event, mapping.scenario);
              records.push({ topic: 'items', key: item.itemId, value: item });
            }
            records.push({ topic: event.topic, key: event.value.userId, value: event.value } as OutRecord);
          }
        } catch (error) {
          if (!(error instanceof BadRecordError || error instanceof RowError)) throw error;
          const reason = error instanceof BadRecordError ? error.reason : 'UNDECODABLE';
          const rowError = error instanceof RowError ? error : new RowError('(value)', null, error.message);
          badRows.add({ file: `kafka:${source}/${record.partition}`, row: record.offset, error: rowError });
          records.push(io.deadLetter(record, { reason, message: error.message }));
          meter.recordDeadLetter(reason);
        }
      }
    return records;
  };
}

/** Ids come from partition and offset, so that reading a record again gives the same ones. */
function mapRecord(map: RowMapper, values: Record<string, unknown>, record: RawRecord): LogRow {
  return map({ values }, record.offset, `${record.partition}.${record.offset}`);
}
