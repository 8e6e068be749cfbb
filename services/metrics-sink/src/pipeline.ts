/**
 * consumes        every topic, read_committed, from the offsets that ClickHouse itself holds
 * produces        one ClickHouse table per topic
 * waits for       nothing: a table row stands for exactly one record
 * is unblocked by ClickHouse answering; while it is away inserts are repeated with back-off and reading stands still
 * commits when    the rows are inserted: the next offsets go to sink_offsets afterwards. A crash between the two inserts
 *                 the same rows again, which ReplacingMergeTree by (_partition, _offset) folds into one
 */
import { BadRecordError, TOPICS, type TopicName } from '@onemall/contracts';
import {
  type FetchedPartition,
  type KafkaIo,
  type LogReader,
  OffsetOutOfRangeError,
  type OutRecord,
  type Position,
  type RecordWriter,
} from '@onemall/kafka-io';
import type { Clock, Logger, StageMeter } from '@onemall/service-kit';
import type { ClickHouseTables } from './adapters/clickhouse.ts';
import { type Row, toRow } from './stages/to-row.ts';

export interface SinkPipeline {
  io: KafkaIo;
  tables: ClickHouseTables;
  meter: StageMeter;
  clock: Clock;
  log: Logger;
  stopping: AbortSignal;
  flushMs: number;
  maxRows: number;
}

const EARLIEST = -2;
const RETRY_MS = [100, 250, 500, 1_000, 2_500, 5_000];

export async function runSink(sink: SinkPipeline): Promise<void> {
  const reader = await sink.io.openReader();
  const writer = await sink.io.openWriter();
  const progress = await startPositions(sink);
  await reader.assign([...progress.values()]);
  const ends = new Map<string, number>();
  try {
    while (!sink.stopping.aborted) {
      const fetched = await gather(sink, reader);
      if (fetched.length === 0) continue;
      const { rows, dead, newestMs } = await decodeAll(sink, fetched);
      if (dead.length > 0) await persistently(sink, 'write dead letters', () => writer.send(dead));
      for (const [topic, list] of rows)
        await persistently(sink, `insert into ${topic}`, () => sink.tables.insert(topic, list));
      const moved = fetched.map(
        (f): Position => ({ topic: f.topic, partition: f.partition, offset: f.nextOffset }),
      );
      for (const position of moved) progress.set(key(position), position);
      await persistently(sink, 'save offsets', () => sink.tables.saveOffsets(newest(moved)));
      measure(sink, rows, newestMs);
      setLag(sink, progress, ends, fetched);
    }
  } finally {
    await reader.close();
    await (writer as RecordWriter).close();
  }
}

const key = (p: { topic: string; partition: number }): string => `${p.topic}-${p.partition}`;
const newest = (positions: Position[]): Position[] => [
  ...new Map(positions.map((p) => [key(p), p])).values(),
];

async function startPositions({ io, tables }: SinkPipeline): Promise<Map<string, Position>> {
  const positions = new Map<string, Position>();
  for (const { name } of TOPICS)
    for (let partition = 0; partition < (await io.numPartitions(name)); partition++)
      positions.set(`${name}-${partition}`, { topic: name, partition, offset: EARLIEST });
  for (const known of await tables.offsets()) if (positions.has(key(known))) positions.set(key(known), known);
  return positions;
}

/** Polls until there are enough rows for one insert or the first has waited flushMs. */
async function gather(sink: SinkPipeline, reader: LogReader): Promise<FetchedPartition[]> {
  const { clock, stopping, flushMs, maxRows } = sink;
  const fetched: FetchedPartition[] = [];
  let rows = 0;
  let until = clock.nowMs() + flushMs;
  do {
    const part = await pollPastGaps(sink, reader, Math.max(1, until - clock.nowMs()));
    if (rows === 0) until = clock.nowMs() + flushMs;
    for (const p of part) {
      rows += p.records.length;
      fetched.push(p);
    }
  } while (rows < maxRows && clock.nowMs() < until && !stopping.aborted);
  return fetched;
}

/** Records that retention took before they were stored are gone for the metrics: the partition goes on at its earliest. */
async function pollPastGaps(
  { log, meter }: SinkPipeline,
  reader: LogReader,
  maxWaitMs: number,
): Promise<FetchedPartition[]> {
  try {
    return await reader.poll({ maxWaitMs });
  } catch (error) {
    if (!(error instanceof OffsetOutOfRangeError) || !error.at) throw error;
    log.error({ err: error }, 'records were deleted before they were stored; going on at the earliest');
    meter.add('partitions_with_gaps');
    await reader.assign([{ ...error.at, offset: EARLIEST }]);
    return [];
  }
}

async function decodeAll({ io, meter, log }: SinkPipeline, fetched: FetchedPartition[]) {
  const rows = new Map<TopicName, Row[]>();
  const dead: OutRecord[] = [];
  let newestMs = 0;
  for (const { topic, records } of fetched) {
    for (const raw of records) {
      if (raw.value === null) continue;
      newestMs = Math.max(newestMs, raw.timestampMs);
      try {
        const list = rows.get(topic) ?? rows.set(topic, []).get(topic)!;
        list.push(toRow(await io.decode(topic, raw)));
      } catch (error) {
        if (!(error instanceof BadRecordError)) throw error;
        // The service that owns the topic reports a bad record; only what nobody else reads is reported here.
        if (SINK_ONLY.has(topic)) dead.push(io.deadLetter(raw, error));
        if (topic === 'dead-letters')
          log.error(
            { err: error, partition: raw.partition, offset: raw.offset },
            'an undecodable dead letter is left out',
          );
        meter.add('rows_undecodable');
      }
    }
  }
  return { rows, dead, newestMs };
}
const SINK_ONLY = new Set<TopicName>([
  'training-metrics',
  'sid-metrics',
  'retrieval-metrics',
  'item-embeddings',
  'late-events',
]);

function measure({ meter, clock }: SinkPipeline, rows: Map<TopicName, Row[]>, newestMs: number): void {
  let count = 0;
  for (const list of rows.values()) count += list.length;
  meter.recordIn(count);
  meter.recordOut(count);
  if (newestMs > 0) meter.recordLatency(Math.max(0, clock.nowMs() - newestMs));
}

/** Records behind the end, over all partitions: of those not in this round, by the end last seen. */
function setLag(
  { meter }: SinkPipeline,
  progress: Map<string, Position>,
  ends: Map<string, number>,
  fetched: FetchedPartition[],
): void {
  for (const f of fetched) ends.set(key(f), f.highWatermark);
  let lag = 0;
  for (const [name, end] of ends) lag += Math.max(0, end - Math.max(0, progress.get(name)?.offset ?? 0));
  meter.setLag(lag);
}

/** Repeats until it works: ClickHouse or the broker being away is waited for, nothing is skipped. */
async function persistently(sink: SinkPipeline, what: string, act: () => Promise<void>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await act();
    } catch (error) {
      if (sink.stopping.aborted) throw error;
      const waitMs = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]!;
      sink.meter.add('insert_retries');
      sink.log.warn({ err: error, attempt, waitMs }, `could not ${what}; trying again`);
      await sink.clock.sleep(waitMs, sink.stopping);
    }
  }
}
