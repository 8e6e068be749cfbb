import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { connectKafka, kafkaSettings } from '@onemall/kafka-io';
import { runService } from '@onemall/service-kit';
import { ClickHouseTables, openClickHouse } from './adapters/clickhouse.ts';
import { serveSql } from './adapters/sql-server.ts';
import { readConfig } from './config.ts';
import { runSink } from './pipeline.ts';
import { addressFile } from './stages/address-file.ts';

await runService({
  name: 'metrics-sink',
  config: readConfig,
  start: async ({ config, log, clock, meter, stopping, fail }) => {
    const clickhouse = await openClickHouse(config);
    const tables = new ClickHouseTables(clickhouse.writer, config.clickhouseDatabase);
    await tables.create();
    const sql = await serveSql(clickhouse.reader, config.clickhouseDatabase, config.sqlHost, config.sqlPort);
    if (!config.clickhouseUrl)
      writeFileSync(
        addressFile(config.clickhousePath),
        JSON.stringify({ sqlUrl: sql.url, pid: process.pid }),
      );
    log.info(
      { sqlUrl: sql.url, database: config.clickhouseUrl || path.resolve(config.clickhousePath) },
      'serving SQL',
    );
    const io = await connectKafka({
      ...kafkaSettings(config),
      clientId: 'metrics-sink',
    });
    const done = runSink({
      io,
      tables,
      meter,
      clock,
      log,
      stopping,
      flushMs: config.sinkFlushMs,
      maxRows: config.sinkMaxRows,
    });
    done.catch(fail);
    return {
      stop: async () => {
        await done;
        await sql.close();
        await clickhouse.close();
        await io.close();
      },
    };
  },
});
