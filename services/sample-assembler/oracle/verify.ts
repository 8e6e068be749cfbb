/**
 * Joins the raw logs once more in SQL, without any code of the join, and compares every field of every sample that must
 * have left. Prints one line of JSON; exits 1 when anything differs.
 *
 *     node services/sample-assembler/oracle/verify.ts      with the environment of the service
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import { connectKafka, type KafkaIo, kafkaSettings } from '@onemall/kafka-io';
import { type SampleAssemblerConfig, sampleAssemblerConfig } from '../src/config.ts';
import { dumpAll, LOGS } from './dump.ts';

export interface Verdict {
  ok: boolean;
  /** Exposures that closed below the committed watermark. */
  exposures: number;
  /** FINAL samples compared. */
  finals: number;
  positives: number;
  missing: number;
  extra: number;
  different: number;
  /** Samples whose labels were held against bounds alone, since an event may have been read before or after a decision. */
  unsureLabels: number;
  /** Histories, three for each sample, of which only one list is right. */
  exactHistories: number;
  /** Histories held against bounds, since an event may have been read before or after the sample left. */
  unsureHistories: number;
  /** Input records by fate, and those with none or several. */
  fates: { counted: number; late: number; dead: number; waiting: number; duplicate: number; wrong: number };
  firstDifferences: unknown[];
}

export type OracleRules = Pick<
  SampleAssemblerConfig,
  | 'scenarios'
  | 'outOfOrdernessMs'
  | 'graceMs'
  | 'maxDelayMs'
  | 'inputFreshnessMs'
  | 'allowedClockSkewMs'
  | 'historyLength'
  | 'emit'
>;

const TABLES = [
  `events (topic LowCardinality(String), part Int32, off Int64, append Int64, key String, userId String, itemId String, t Int64, id String,
    exposureId Nullable(String), scenario String, requestId String, r Int64, price Int64, quantity Int64 DEFAULT 1, least Int64, finite UInt8 DEFAULT 1, body String)`,
  'undecodable (topic String, part Int32, off Int64, reason String)',
  'late (topic LowCardinality(String), part Int32, off Int64, reason String, w Int64)',
  'dead (topic LowCardinality(String), part Int32, off Int64, reason String)',
  'items (itemId String, validFrom Int64, seq Int64, ts Int64, visible Int64, category String, facts String)',
  'sids (id String, live UInt8, version Int64, validFrom Int64, seq Int64, ts Int64, visible Int64, sid String, selling String)',
  'windows (scenario String, clickWindow Int64, buyWindow Int64)',
  'commits (topic LowCardinality(String), part Int32, off Int64, w Int64)',
];
const SAMPLES = `samples (part Int32, off Int64, ts Int64, kind String, exposureId String, userId String, itemId String, requestId String, r Int64, body String,
    firstPositive Bool, clicked Bool, clickDelay Nullable(Int64), bought Bool, buyDelay Nullable(Int64), buyValue Int64, buyQuantity Int64,
    sid String, item String, selling String, hExposures Array(String), hClicks Array(String), hBuys Array(String), w Int64)`;
/** Append times are whole milliseconds. */
const CLOCK_TICK_MS = 2;

/** @throws Error where the database or Kafka fails; a wrong sample is a verdict */
function verify(io: KafkaIo, config: SampleAssemblerConfig): Promise<Verdict> {
  return verdictOn(config, async (db) => {
    tell('reads the logs');
    // The committed offsets come first: what is committed later is simply not judged.
    await db.insert({ table: 'commits', values: await commits(io, config), format: 'JSONEachRow' });
    await dumpAll(io, db);
    tell('joins them');
  });
}

/** Where it stands, for whoever waits or ends it. */
const tell = (what: string): void => console.error(`oracle: ${what}`);

/** @param fill puts the rows of the logs into the tables */
export async function verdictOn(
  config: OracleRules,
  fill: (db: ClickHouseClient) => Promise<void>,
): Promise<Verdict> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-oracle-'));
  const { createChdbConnection } = await import('chdb/connection');
  const db = createClient({ connection: createChdbConnection({ path: folder }) as never });
  try {
    for (const table of TABLES) await db.command({ query: `CREATE TABLE ${table} ENGINE = Log` });
    // Read in small blocks, for each sample meets everything that its user did.
    await db.command({
      query: `CREATE TABLE ${SAMPLES} ENGINE = MergeTree ORDER BY userId SETTINGS index_granularity = 256`,
    });
    const windows = Object.entries(config.scenarios).map(([scenario, w]) => ({
      scenario,
      clickWindow: w.clickWindowMs,
      buyWindow: w.buyWindowMs,
    }));
    await db.insert({ table: 'windows', values: windows, format: 'JSONEachRow' });
    await fill(db);
    // Else an alias such as max(w) AS w would stand for the column inside other expressions.
    await db.command({ query: 'SET prefer_column_name_to_alias = 1' });
    for (const query of await statements(config)) await db.command({ query });
    return await judge(db);
  } finally {
    await db.close();
    await rm(folder, { recursive: true, force: true });
  }
}

async function commits(io: KafkaIo, config: SampleAssemblerConfig): Promise<unknown[]> {
  const partitions = (
    await Promise.all(
      LOGS.map(async (topic) =>
        Array.from({ length: await io.numPartitions(topic) }, (_, partition) => ({ topic, partition })),
      ),
    )
  ).flat();
  // As of now: whatever a transaction under way brings is simply not judged yet.
  const group = `${config.namespace}.sample-assembler`;
  const positions = await io.committed(group, partitions, { settled: false });
  return positions.map(({ topic, partition, offset, metadata }) => ({
    topic,
    part: partition,
    off: offset,
    w: Number(metadata?.split(',')[0] || 0),
  }));
}

async function statements(config: OracleRules): Promise<string[]> {
  const values: Record<string, number> = {
    ooo: config.outOfOrdernessMs,
    grace: config.graceMs,
    maxDelay: config.maxDelayMs,
    freshness: config.inputFreshnessMs,
    skew: config.allowedClockSkewMs,
    tick: CLOCK_TICK_MS,
    H: config.historyLength,
    positive: config.emit.includes('positive') ? 1 : 0,
  };
  const sql = await readFile(path.join(import.meta.dirname, 'join.sql'), 'utf8');
  return sql
    .replaceAll(/^--.*$/gm, '')
    .replaceAll(/\{(\w+)\}/g, (_, name: string) => String(values[name]))
    .split(/;\s*$/m)
    .filter((statement) => statement.trim() !== '');
}

async function judge(db: ClickHouseClient): Promise<Verdict> {
  const rows = async <R>(query: string): Promise<R[]> => {
    const result = await db.query({
      query: `${query} SETTINGS output_format_json_quote_64bit_integers = 0`,
      format: 'JSONEachRow',
    });
    return (await result.json()) as R[];
  };
  const [counts] = await rows<Record<string, number>>(`SELECT
    (SELECT count() FROM judged) AS exposures,
    (SELECT countIf(isThere AND kind = 'FINAL') FROM compared) AS finals,
    (SELECT countIf(isThere AND kind != 'FINAL') FROM compared) AS positives,
    (SELECT countIf(NOT isThere AND NOT (lenient AND kind != 'FINAL')) FROM compared) AS missing,
    (SELECT count() FROM extra) AS extra,
    (SELECT countIf(isThere AND notEmpty(differences)) FROM compared) + (SELECT countIf(different) FROM histories) AS different,
    (SELECT countIf(isThere AND lenient) FROM compared) AS unsureLabels,
    (SELECT countIf(NOT unsure) FROM histories) AS exactHistories,
    (SELECT countIf(unsure) FROM histories) AS unsureHistories,
    (SELECT countIf(u.off < c.off AND (u.topic, u.part, u.off) NOT IN (SELECT topic, part, off FROM dead))
      FROM undecodable AS u INNER JOIN commits AS c ON u.topic = c.topic AND u.part = c.part) AS undecodableLost,
    (SELECT count() - uniqExact(topic, part, off) FROM dead) + (SELECT count() - uniqExact(topic, part, off) FROM late) AS reportedTwice`);
  const [fates] = await rows<Verdict['fates']>(
    'SELECT sum(counted) AS counted, sum(late) AS late, sum(dead) AS dead, sum(waiting) AS waiting, sum(duplicate) AS duplicate, countIf(notEmpty(wrong)) AS wrong FROM fates',
  );
  const firstDifferences = await rows<unknown>(
    `SELECT * FROM (
      SELECT 'missing' AS what, xid, kind, [''] AS fields FROM compared WHERE NOT isThere AND NOT (lenient AND kind != 'FINAL')
      UNION ALL SELECT 'extra', xid, kind, [why] FROM extra
      UNION ALL SELECT 'different', xid, kind, differences FROM compared WHERE isThere AND notEmpty(differences)
      UNION ALL SELECT 'different', xid, kind, [concat('history.', field)] FROM histories WHERE different
      UNION ALL SELECT 'fate', concat(topic, ':', toString(part), ':', toString(off)), id, wrong FROM fates WHERE notEmpty(wrong)
    ) LIMIT 10`,
  );
  const c = counts!;
  const number = (name: string): number => Number(c[name]);
  const wrong = Number(fates!.wrong) + number('undecodableLost') + number('reportedTwice');
  return {
    ok: number('missing') + number('extra') + number('different') + wrong === 0,
    exposures: number('exposures'),
    finals: number('finals'),
    positives: number('positives'),
    missing: number('missing'),
    extra: number('extra'),
    different: number('different'),
    unsureLabels: number('unsureLabels'),
    exactHistories: number('exactHistories'),
    unsureHistories: number('unsureHistories'),
    fates: { ...fates!, wrong },
    firstDifferences,
  };
}

if (process.argv[1] === import.meta.filename) {
  const config = sampleAssemblerConfig();
  const io = await connectKafka({
    ...kafkaSettings(config),
    clientId: 'sample-oracle',
  });
  const verdict = await verify(io, config);
  await io.close();
  console.log(JSON.stringify(verdict));
  process.exit(verdict.ok ? 0 : 1);
}
