/**
 * From files to events in order of time:
 *
 *   rows -> [spread over their day, in file order] -> [sessions] -> events -> sorted
 *
 * Everything larger than the sorter's limit lies in files, so a log of any size fits.
 */
import { SeededRandom } from '@onemall/service-kit';
import { ExternalSort } from './adapters/external-sort.ts';
import { readTables } from './adapters/read-tables.ts';
import type { Mapping } from './mapping.ts';
import { rowConverter } from './stages/convert-row.ts';
import { convertSession } from './stages/convert-session.ts';
import { compareEvents, type LogEvent } from './stages/events.ts';
import { type LogRow, RowError, rowMapper } from './stages/map-row.ts';
import { TimeSpreader } from './stages/spread-times.ts';
import { TimeSampler } from './stages/timeline.ts';

export interface PrepareOptions {
  files: readonly string[];
  mapping: Mapping;
  seed: number;
  /** Rows or events sorted in memory at once. */
  sortLimit: number;
  /** For pieces of the sort. */
  folder: string;
  /** Rows dated after this are bad. */
  latestMs: number;
  onBadRow: (bad: { file: string; row: number; error: RowError }) => void;
  stopping?: AbortSignal;
}

export interface Prepared {
  events: ExternalSort<LogEvent>;
  sampler: TimeSampler;
  rows: number;
  /** Clicks and buys that no list of their session explains. */
  withoutList: number;
  syntheticExposures: number;
  syntheticNegatives: number;
}

/** A row on its way, with where it came from for messages. */
type PlacedRow = LogRow & { file: string; row: number };

const byTime = (a: LogRow, b: LogRow): number => a.timeMs - b.timeMs || a.seq - b.seq;
const bySession = (a: LogRow, b: LogRow): number =>
  a.session === b.session ? byTime(a, b) : a.session < b.session ? -1 : 1;

/** @throws ConfigError for files that cannot be read with this mapping; bad rows only reach onBadRow */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const { mapping, sortLimit, folder, onBadRow } = options;
  const newSort = <T>(compare: (a: T, b: T) => number): ExternalSort<T> =>
    new ExternalSort<T>(compare, sortLimit, folder);
  const events = newSort(compareEvents);
  const prepared: Prepared = {
    events,
    sampler: new TimeSampler(),
    rows: 0,
    withoutList: 0,
    syntheticExposures: 0,
    syntheticNegatives: 0,
  };
  const emit = async (event: LogEvent): Promise<void> => {
    if (event.topic === 'exposures' && event.synthetic) {
      prepared.syntheticExposures++;
      if (event.synthetic === 'negative') prepared.syntheticNegatives++;
    }
    await events.add(event);
  };

  const rows = newSort<PlacedRow>(mapping.impressions ? bySession : byTime);
  try {
    for await (const row of placedRows(options)) {
      prepared.rows++;
      await rows.add(row);
    }
    if (mapping.impressions) await convertSessions(rows, mapping, emit, prepared, onBadRow);
    else await convertRows(rows, options, emit);
  } finally {
    await rows.close();
  }
  for await (const batch of events.sorted()) for (const e of batch) prepared.sampler.add(e.timeMs);
  return prepared;
}

type Emit = (event: LogEvent) => Promise<void>;

/** Mapped rows; with a time resolution the files are read twice, to count the rows of each day first. */
async function* placedRows(options: PrepareOptions): AsyncGenerator<PlacedRow> {
  const { timeResolution } = options.mapping.time;
  const spreader = timeResolution && new TimeSpreader(timeResolution);
  if (spreader)
    for await (const row of mappedRows({ ...options, onBadRow: () => undefined })) spreader.count(row.timeMs);
  for await (const row of mappedRows(options))
    yield spreader ? { ...row, timeMs: spreader.spread(row.timeMs) } : row;
}

async function* mappedRows(options: PrepareOptions): AsyncGenerator<PlacedRow> {
  const { files, mapping, onBadRow, stopping } = options;
  const map = rowMapper(mapping, () => options.latestMs);
  let seq = 0;
  for await (const read of readTables(files, mapping)) {
    stopping?.throwIfAborted();
    seq++;
    if ('error' in read) {
      onBadRow(read);
      continue;
    }
    try {
      yield { ...map(read, seq), file: read.file, row: read.row };
    } catch (error) {
      if (!(error instanceof RowError)) throw error;
      onBadRow({ file: read.file, row: read.row, error });
    }
  }
}

/** Made-up exposures draw their negatives in order of time: from what was acted on before. */
async function convertRows(
  rows: ExternalSort<PlacedRow>,
  options: PrepareOptions,
  emit: Emit,
): Promise<void> {
  const convert = rowConverter(options.mapping, new SeededRandom(options.seed));
  for await (const batch of rows.sorted())
    for (const row of batch) for (const event of convert(row)) await emit(event);
}

async function convertSessions(
  rows: ExternalSort<PlacedRow>,
  mapping: Mapping,
  emit: Emit,
  prepared: Prepared,
  onBadRow: PrepareOptions['onBadRow'],
): Promise<void> {
  let session: PlacedRow[] = [];
  const close = async (): Promise<void> => {
    const { events, withoutList, bad } = convertSession(session, mapping);
    prepared.withoutList += withoutList;
    for (const { row, error } of bad) {
      const { file, row: number } = session.find((r) => r.seq === row.seq)!;
      onBadRow({ file, row: number, error });
    }
    for (const event of events) await emit(event);
    session = [];
  };
  for await (const batch of rows.sorted())
    for (const row of batch) {
      if (session.length > 0 && session[0]!.session !== row.session) await close();
      session.push(row);
    }
  if (session.length > 0) await close();
}
