import { loadConfig, parseJsonText, z } from '@onemall/service-kit';

export const dashboardShape = {
  dashboardPort: z.coerce
    .number()
    .int()
    .min(0)
    .max(65_535)
    .default(0)
    .describe('the web page; 0 takes a free port'),
  dashboardHost: z.string().default('127.0.0.1'),
  services: z
    .preprocess(parseJsonText, z.record(z.string(), z.url()))
    .default({})
    .describe('addresses of the services by name, as JSON'),
  servicesFile: z
    .string()
    .default('')
    .describe('JSON file with the same, read again at each poll; for ports that are chosen at start'),
  sqlUrl: z
    .string()
    .default('')
    .describe('read-only SQL of the metrics-sink; else found beside clickhousePath'),
  clickhousePath: z.string().default('.data/clickhouse'),
  pollMs: z.coerce.number().int().min(100).default(1_000),
  historyPoints: z.coerce.number().int().min(10).default(900),
};
export const readConfig = (env?: Record<string, string | undefined>) => loadConfig(dashboardShape, env);
export type DashboardConfig = ReturnType<typeof readConfig>;
