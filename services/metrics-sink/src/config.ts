import { loadConfig, z } from '@onemall/service-kit';

export const sinkShape = {
  clickhouseUrl: z
    .union([z.literal(''), z.url()])
    .default('')
    .describe('ClickHouse server; empty embeds chDB in this process'),
  clickhousePath: z.string().default('.data/clickhouse').describe('folder of the embedded database'),
  clickhouseDatabase: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
    .default('onemall'),
  clickhouseUser: z.string().default('default'),
  clickhousePassword: z.string().default(''),
  sqlHost: z.string().default('127.0.0.1').describe('address of the read-only SQL'),
  sqlPort: z.coerce
    .number()
    .int()
    .min(0)
    .max(65_535)
    .default(0)
    .describe('read-only SQL (POST /sql); 0 takes a free port'),
  sinkFlushMs: z.coerce
    .number()
    .int()
    .min(1)
    .default(500)
    .describe('rows wait at most this long for an insert'),
  sinkMaxRows: z.coerce.number().int().min(1).default(20_000).describe('rows that end the wait'),
};

export const readConfig = (env?: Record<string, string | undefined>) => loadConfig(sinkShape, env);
export type SinkConfig = ReturnType<typeof readConfig>;
