/** Small logs made by the tests. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import type { Item } from '@onemall/contracts';
import { parquetWriteFile } from 'hyparquet-writer';
import type { Mapping } from '../src/mapping.ts';
import { type Prepared, prepare } from '../src/prepare.ts';
import { deriveItem } from '../src/stages/derive-item.ts';
import type { LogEvent } from '../src/stages/events.ts';
import type { RowError } from '../src/stages/map-row.ts';

export const NOW_MS = Date.UTC(2026, 0, 1);

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-replay-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export async function writeCsv(folder: string, name: string, lines: readonly string[]): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, `${lines.join('\n')}\n`);
  return file;
}

export interface TrivagoRow {
  user: string;
  session: string;
  timeS: number;
  action: string;
  reference: string;
  impressions?: string;
  prices?: string;
}

/** A Parquet file with the columns of the trivago log. */
export function writeTrivago(file: string, rows: readonly TrivagoRow[]): void {
  const strings = (name: string, of: (r: TrivagoRow) => string | undefined) => ({
    name,
    data: rows.map((r) => of(r) ?? null),
    type: 'STRING' as const,
    nullable: true,
  });
  parquetWriteFile({
    filename: file,
    columnData: [
      strings('user_id', (r) => r.user),
      strings('session_id', (r) => r.session),
      { name: 'timestamp', data: rows.map((r) => BigInt(r.timeS)), type: 'INT64' },
      strings('action_type', (r) => r.action),
      strings('reference', (r) => r.reference),
      strings('city', () => 'Oslo, Norway'),
      strings('impressions', (r) => r.impressions),
      strings('prices', (r) => r.prices),
    ],
  });
}

export interface Collected extends Prepared {
  all: LogEvent[];
  itemsSeen: Item[];
  bad: { file: string; row: number; error: RowError }[];
}

/** Runs `prepare` and keeps what comes out. */
export async function collect(
  t: TestContext,
  files: readonly string[],
  mapping: Mapping,
  more: { sortLimit?: number; seed?: number } = {},
): Promise<Collected> {
  const bad: Collected['bad'] = [];
  const prepared = await prepare({
    files,
    mapping,
    seed: more.seed ?? 1,
    sortLimit: more.sortLimit ?? 1_000_000,
    folder: path.join(await temporaryFolder(t), 'sort'),
    latestMs: NOW_MS,
    onBadRow: (b) => bad.push(b),
  });
  const all: LogEvent[] = [];
  for await (const batch of prepared.events.sorted()) for (const event of batch) all.push(event);
  await prepared.events.close();
  const items = new Map<string, Item>();
  for (const event of all)
    if (!items.has(event.value.itemId)) items.set(event.value.itemId, deriveItem(event, mapping.scenario));
  return { ...prepared, all, itemsSeen: [...items.values()], bad };
}

export const valuesOf = <T extends LogEvent['topic']>(events: readonly LogEvent[], topic: T) =>
  events
    .filter((e): e is Extract<LogEvent, { topic: T }> => e.topic === topic)
    .map((e) => e.value) as Extract<LogEvent, { topic: T }>['value'][];
