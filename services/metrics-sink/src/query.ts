/**
 * `npm run query` lists the named queries; `npm run query -- NAME` runs one; `npm run query -- --sql "SELECT ..."` any other.
 * Asks the running metrics-sink, a ClickHouse server when ONEMALL_CLICKHOUSE_URL is set, or opens the folder of a stopped sink.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ConfigError } from '@onemall/service-kit';
import { openClickHouse } from './adapters/clickhouse.ts';
import { readConfig, type SinkConfig } from './config.ts';
import { addressFile } from './stages/address-file.ts';
import { type CompactResult, renderTable } from './stages/render-table.ts';

const FOLDER = fileURLToPath(new URL('../../../queries/', import.meta.url));
const FORMATS = { table: 'JSONCompact', json: 'JSONEachRow', csv: 'CSVWithNames' } as const;
type Format = keyof typeof FORMATS;

/** Name and first line of each query file. */
export function namedQueries(): { name: string; about: string }[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .map((file) => ({
      name: file.slice(0, -4),
      about: readFileSync(FOLDER + file, 'utf8')
        .split('\n')[0]!
        .replace(/^-- /, ''),
    }));
}

/** @throws Error naming the known queries */
export function queryText(name: string): string {
  const known = namedQueries().map((q) => q.name);
  if (!known.includes(name)) throw new Error(`No query ${name} in queries/: known are ${known.join(', ')}`);
  return readFileSync(`${FOLDER}${name}.sql`, 'utf8');
}

/** Runs SQL where the data is. @throws Error with ClickHouse's message */
export async function runQuery(config: SinkConfig, query: string, format: Format): Promise<string> {
  const url = config.clickhouseUrl ? undefined : runningSink(config);
  if (url) {
    const body = JSON.stringify({ query, format: FORMATS[format] });
    const response = await fetch(url, { method: 'POST', body }).catch(() => undefined);
    if (response?.ok) return response.text();
    if (response) throw new Error(await response.text());
  } else if (!config.clickhouseUrl && !existsSync(config.clickhousePath)) {
    throw new Error(
      `No database in ${config.clickhousePath}: start the pipeline with npm start, or set ONEMALL_CLICKHOUSE_URL to a server`,
    );
  }
  const clickhouse = await openClickHouse(config);
  try {
    const result = await clickhouse.reader.query({
      query: query.replaceAll('{database}', config.clickhouseDatabase),
      format: FORMATS[format],
    });
    return await result.text();
  } finally {
    await clickhouse.close();
  }
}

function runningSink(config: SinkConfig): string | undefined {
  try {
    return (JSON.parse(readFileSync(addressFile(config.clickhousePath), 'utf8')) as { sqlUrl: string })
      .sqlUrl;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { sql: { type: 'string' }, format: { type: 'string', default: 'table' } },
    allowPositionals: true,
  });
  const format = values.format as Format;
  if (!(format in FORMATS)) {
    console.error(`--format is one of ${Object.keys(FORMATS).join(', ')}, got ${values.format}`);
    process.exit(2);
  }
  const [name] = positionals;
  if (!name && !values.sql) {
    console.log(
      'npm run query -- NAME [--format table|json|csv]\nnpm run query -- --sql "SELECT count() FROM {database}.exposures"\n',
    );
    for (const q of namedQueries()) console.log(`  ${q.name.padEnd(24)} ${q.about}`);
  } else {
    try {
      const text = await runQuery(readConfig(), values.sql ?? queryText(name!), format);
      process.stdout.write(format === 'table' ? renderTable(JSON.parse(text) as CompactResult) : text);
    } catch (error) {
      console.error(error instanceof ConfigError ? error.message : (error as Error).message);
      process.exitCode = 1;
    }
  }
}
