/** Rows of CSV and Parquet files, one file after the other, in bounded memory (Parquet: one row group). */
import { createReadStream, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { ConfigError } from '@onemall/service-kit';
import { parse } from 'csv-parse';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { type Mapping, mappedColumns } from '../mapping.ts';
import { RowError, type TableRow } from '../stages/map-row.ts';

const ENDINGS = ['.csv', '.tsv', '.parquet'] as const;

/** A row that could be split into cells, or the reason why not. */
export type ReadRow = TableRow | { file: string; row: number; error: RowError };

/**
 * The source itself, or the CSV, TSV and Parquet files of a folder by name.
 * @throws ConfigError when nothing is there
 */
export function sourceFiles(source: string): string[] {
  const found = statSync(source, { throwIfNoEntry: false });
  if (!found)
    throw new ConfigError(
      `No file or folder ${source}: set replaySource (--source FILE_OR_FOLDER, or --data DIR for a ready source) to where the log is`,
    );
  if (!found.isDirectory()) {
    if (!ENDINGS.some((e) => source.toLowerCase().endsWith(e)))
      throw new ConfigError(
        `${source} is no log that can be read: expected a name ending in ${ENDINGS.join(', ')}`,
      );
    return [source];
  }
  const names = readdirSync(source)
    .filter((n) => ENDINGS.some((e) => n.toLowerCase().endsWith(e)))
    .sort();
  if (names.length === 0)
    throw new ConfigError(`Folder ${source} holds no files ending in ${ENDINGS.join(', ')}`);
  return names.map((n) => path.join(source, n));
}

/** @throws ConfigError when a file lacks a column of the mapping or cannot be read at all */
export async function* readTables(files: readonly string[], mapping: Mapping): AsyncGenerator<ReadRow> {
  for (const file of files)
    yield* file.toLowerCase().endsWith('.parquet') ? readParquet(file, mapping) : readCsv(file, mapping);
}

function checkColumns(file: string, present: readonly string[], mapping: Mapping): void {
  const missing = mappedColumns(mapping).filter((c) => !present.includes(c));
  if (missing.length > 0)
    throw new ConfigError(
      `${file} has no column ${missing.join(', ')} that mapping ${mapping.name} names: its columns are ${present.join(', ')}`,
    );
}

async function* readCsv(file: string, mapping: Mapping): AsyncGenerator<ReadRow> {
  const delimiter = file.toLowerCase().endsWith('.tsv') ? '\t' : mapping.csv.delimiter;
  const input = createReadStream(file);
  const rows = input.pipe(
    parse({ delimiter, bom: true, relax_column_count: true, relax_quotes: true, skip_empty_lines: true }),
  );
  // an error of the file does not travel through pipe
  input.on('error', (error) => rows.destroy(error));
  let columns = mapping.csv.columns;
  if (columns) checkColumns(file, columns, mapping);
  let row = 0;
  try {
    for await (const cells of rows as AsyncIterable<string[]>) {
      if (!columns) {
        columns = cells.map((c) => c.trim());
        checkColumns(file, columns, mapping);
        continue;
      }
      row++;
      if (cells.length !== columns.length) {
        const error = new RowError('(row)', cells.join(delimiter).slice(0, 200), `${columns.length} cells`);
        yield { file, row, error };
        continue;
      }
      const values: Record<string, unknown> = {};
      for (let i = 0; i < columns.length; i++) values[columns[i]!] = cells[i];
      yield { file, row, values };
    }
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`${file} cannot be read as CSV after row ${row}: ${(cause as Error).message}`, {
      cause,
    });
  } finally {
    input.destroy();
  }
  if (!columns)
    throw new ConfigError(`${file} is empty: expected a first line with the names of the columns`);
}

async function* readParquet(path: string, mapping: Mapping): AsyncGenerator<ReadRow> {
  const file = await asyncBufferFromFile(path);
  const columns = mappedColumns(mapping);
  try {
    const metadata = await parquetMetadataAsync(file);
    checkColumns(
      path,
      parquetSchema(metadata).children.map((c) => c.element.name),
      mapping,
    );
    let start = 0;
    for (const group of metadata.row_groups) {
      const end = start + Number(group.num_rows);
      const rows = await parquetReadObjects({
        file,
        metadata,
        columns,
        rowStart: start,
        rowEnd: end,
        compressors,
      });
      for (const [i, values] of rows.entries()) yield { file: path, row: start + i + 1, values };
      start = end;
    }
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`${path} cannot be read as Parquet: ${(cause as Error).message}`, { cause });
  }
}
