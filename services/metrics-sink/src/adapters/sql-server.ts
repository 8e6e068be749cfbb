/**
 * Read-only SQL over HTTP on loopback, so that queries, dashboard, jobs and tests reach the embedded database while the
 * sink holds it. POST /sql { query, format?, params? } answers in the ClickHouse format asked for.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ClickHouseClient } from '@clickhouse/client';
import { z } from '@onemall/service-kit';

const MAX_BODY_BYTES = 1 << 20;
const request = z.object({
  query: z.string().min(1),
  format: z
    .enum(['JSON', 'JSONCompact', 'JSONEachRow', 'CSVWithNames', 'TabSeparatedWithNames'])
    .default('JSON'),
  params: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
});

export interface SqlServer {
  url: string;
  close(): Promise<void>;
}

/** @throws Error naming the port when it is taken */
export async function serveSql(
  reader: ClickHouseClient,
  database: string,
  host: string,
  port: number,
): Promise<SqlServer> {
  const server: Server = createServer((message, response) => {
    const answer = (code: number, body: string): void => {
      response.writeHead(code, { 'content-type': 'text/plain; charset=utf-8' }).end(body);
    };
    if (message.method !== 'POST' || message.url !== '/sql')
      return answer(404, 'POST /sql with { "query": "SELECT ..." }');
    const chunks: Buffer[] = [];
    let size = 0;
    message.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= MAX_BODY_BYTES) chunks.push(chunk);
    });
    message.on('end', () => {
      if (size > MAX_BODY_BYTES)
        return answer(413, `A query of ${size} bytes is longer than ${MAX_BODY_BYTES}`);
      runReadOnly(reader, database, Buffer.concat(chunks).toString('utf8')).then(
        ([code, body]) => answer(code, body),
        (error) => answer(500, String(error)),
      );
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(`Port ${port} for SQL is taken: set ONEMALL_SQL_PORT, 0 takes a free one`)
          : error,
      ),
    );
    server.listen(port, host, resolve);
  });
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}/sql`,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

async function runReadOnly(
  reader: ClickHouseClient,
  database: string,
  body: string,
): Promise<[number, string]> {
  let parsed: z.infer<typeof request>;
  try {
    parsed = request.parse(JSON.parse(body));
  } catch (error) {
    return [400, `Expected { query, format?, params? } as JSON: ${(error as Error).message}`];
  }
  try {
    const result = await reader.query({
      query: parsed.query.replaceAll('{database}', database),
      format: parsed.format,
      query_params: parsed.params,
      clickhouse_settings: {
        readonly: '1',
        max_execution_time: 60,
        output_format_json_quote_64bit_integers: 0,
      },
    });
    return [200, await result.text()];
  } catch (error) {
    return [400, (error as Error).message];
  }
}
