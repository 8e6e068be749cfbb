/**
 * ClickHouse through one client: a server, or chDB inside this process. Services above see no difference.
 */
import { mkdirSync } from 'node:fs';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import { TOPICS, type TopicName } from '@onemall/contracts';
import type { Position } from '@onemall/kafka-io';
import type { SinkConfig } from '../config.ts';
import { tableName, tableStatements } from '../stages/table-schema.ts';
import type { Row } from '../stages/to-row.ts';

export class ClickHouseUnavailableError extends Error {
  override name = 'ClickHouseUnavailableError';
}

type DatabaseConfig = Pick<
  SinkConfig,
  'clickhouseUrl' | 'clickhousePath' | 'clickhouseDatabase' | 'clickhouseUser' | 'clickhousePassword'
>;

/** Reads run within these limits and can change nothing. */
const READ_ONLY = {
  max_execution_time: 60,
  output_format_json_quote_64bit_integers: 0,
  readonly: '1',
} as const;

export interface ClickHouse {
  writer: ClickHouseClient;
  /** Refuses everything but reads. */
  reader: ClickHouseClient;
  close(): Promise<void>;
}

/** @throws ClickHouseUnavailableError when another process holds the embedded folder */
export async function openClickHouse(config: DatabaseConfig): Promise<ClickHouse> {
  const { writer, reader } = config.clickhouseUrl
    ? connectServer(config)
    : await openEmbedded(config.clickhousePath);
  return {
    writer,
    reader,
    close: async () => {
      await reader.close();
      await writer.close();
    },
  };
}

function connectServer({ clickhouseUrl, clickhouseUser, clickhousePassword }: DatabaseConfig) {
  const account = { url: clickhouseUrl, username: clickhouseUser, password: clickhousePassword };
  return {
    writer: createClient(account),
    reader: createClient({ ...account, clickhouse_settings: READ_ONLY }),
  };
}

async function openEmbedded(folder: string) {
  mkdirSync(folder, { recursive: true });
  const { createChdbConnection } = await import('chdb/connection');
  const open = () => createClient({ connection: createChdbConnection({ path: folder }) as never });
  try {
    const writer = open();
    await writer.command({ query: 'SELECT 1' });
    // chDB keeps settings for the life of a connection, so reads have one of their own.
    const reader = open();
    const settings = Object.entries(READ_ONLY).map(([name, value]) => `${name} = ${value}`);
    await reader.command({ query: `SET ${settings.join(', ')}` });
    return { writer, reader };
  } catch (cause) {
    throw new ClickHouseUnavailableError(
      `The embedded database in ${folder} does not open; one process at a time may hold it. ` +
        'Ask the running metrics-sink instead (npm run query does), or stop it first.',
      { cause },
    );
  }
}

/** Tables of all topics, and the offsets up to which each partition has been inserted. */
export class ClickHouseTables {
  readonly #client: ClickHouseClient;
  readonly #database: string;
  constructor(client: ClickHouseClient, database: string) {
    this.#client = client;
    this.#database = database;
  }

  async create(): Promise<void> {
    await this.#client.command({ query: `CREATE DATABASE IF NOT EXISTS ${this.#database}` });
    await this.#client.command({
      query:
        `CREATE TABLE IF NOT EXISTS ${this.#database}.sink_offsets (topic String, partition Int32, next_offset Int64, ` +
        'at DateTime64(6) DEFAULT now64(6)) ENGINE = ReplacingMergeTree(at) ORDER BY (topic, partition)',
    });
    for (const { name } of TOPICS)
      for (const query of tableStatements(this.#database, name)) await this.#client.command({ query });
  }

  /** Where reading goes on, for partitions that were read before. */
  async offsets(): Promise<Position[]> {
    const result = await this.#client.query({
      query: `SELECT topic, partition, argMax(next_offset, at) AS offset FROM ${this.#database}.sink_offsets GROUP BY topic, partition`,
      format: 'JSONEachRow',
    });
    const rows = (await result.json()) as unknown as (Omit<Position, 'offset'> & {
      offset: string | number;
    })[];
    return rows.map((row) => ({ ...row, offset: Number(row.offset) }));
  }

  async insert(topic: TopicName, rows: Row[]): Promise<void> {
    await this.#client.insert({
      table: `${this.#database}.${tableName(topic)}`,
      values: rows,
      format: 'JSONEachRow',
    });
  }

  async saveOffsets(positions: readonly Position[]): Promise<void> {
    const values = positions.map((p) => ({ topic: p.topic, partition: p.partition, next_offset: p.offset }));
    if (values.length > 0)
      await this.#client.insert({ table: `${this.#database}.sink_offsets`, values, format: 'JSONEachRow' });
  }
}
