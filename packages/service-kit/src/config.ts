/**
 * Configuration: one flat shape per service, validated at start. A key `kafkaBrokers` comes from the environment
 * variable ONEMALL_KAFKA_BROKERS, else from the JSON file that ONEMALL_CONFIG names, else from its default.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';

export class ConfigError extends Error {
  override name = 'ConfigError';
}

const scenario = z.object({
  /** A click counts up to this long after its exposure. */
  clickWindowMs: z.number().int().positive(),
  /** A buy counts up to this long after its exposure. */
  buyWindowMs: z.number().int().positive(),
});
const TEN_MINUTES_MS = 600_000;
const PRODUCTION_WINDOWS = { clickWindowMs: TEN_MINUTES_MS, buyWindowMs: 3 * TEN_MINUTES_MS };

/** For values that the environment holds as JSON text. Text that is no JSON stays as it is, and the schema refuses it. */
export function parseJsonText(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** What every service needs. */
export const commonShape = {
  kafkaBrokers: z.string().min(1).default('127.0.0.1:9092').describe('host:port, comma separated'),
  kafkaTls: z
    .union([z.boolean(), z.stringbool()])
    .default(false)
    .describe('TLS to the brokers; their certificates are checked'),
  kafkaTlsCaFile: z
    .string()
    .default('')
    .describe("PEM of the brokers' certificate authority; empty: those that Node trusts"),
  kafkaSaslMechanism: z
    .enum(['', 'plain', 'scram-sha-256', 'scram-sha-512'])
    .default('')
    .describe('empty: none'),
  kafkaSaslUsername: z.string().default(''),
  kafkaSaslPassword: z.string().default(''),
  registryUrl: z.url().default('http://127.0.0.1:8081/apis/ccompat/v7'),
  registryUsername: z.string().default('').describe('HTTP basic authentication; empty: none'),
  registryPassword: z.string().default(''),
  namespace: z
    .string()
    .regex(/^[a-zA-Z0-9_-]+$/)
    .default('onemall')
    .describe('prefix of topics, groups and transactional ids'),
  dataDir: z.string().default('.data').describe('local state; safe to lose'),
  artifactsUri: z
    .string()
    .default('.data/artifacts')
    .describe('folder, or s3://bucket/prefix, for codebooks, checkpoints, policies, snapshots'),
  s3Endpoint: z
    .url()
    .optional()
    .describe('server of an s3:// artifactsUri; that of AWS for s3Region if absent'),
  s3Region: z.string().min(1).default('us-east-1'),
  s3AccessKeyId: z.string().min(1).optional(),
  s3SecretAccessKey: z.string().min(1).optional(),
  s3SessionToken: z.string().min(1).optional(),
  httpHost: z.string().default('127.0.0.1').describe('address of /live /ready /metrics /status'),
  httpPort: z.coerce.number().int().min(0).max(65_535).default(0).describe('0 takes a free port'),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info'),
  seed: z.coerce.number().int().min(0).default(1),
  scenarios: z
    .preprocess(parseJsonText, z.record(z.string().min(1), scenario))
    .default({
      product_card: PRODUCTION_WINDOWS,
      short_video: PRODUCTION_WINDOWS,
      live_stream: PRODUCTION_WINDOWS,
    })
    .describe('scenarios by name with their attribution windows'),
  graceMs: z.coerce
    .number()
    .int()
    .min(0)
    .default(120_000)
    .describe('added to the window before an exposure closes'),
  allowedClockSkewMs: z.coerce.number().int().min(0).default(60_000),
  longestOutageMs: z.coerce
    .number()
    .int()
    .min(0)
    .default(24 * 3_600_000)
    .describe('how long the pipeline may stand still and lose nothing'),
};
/** What the retriever, which makes the rollouts, and the trainer, which learns from their rewards, must agree on. */
export const rolloutShape = {
  rolloutShare: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(0.02)
    .describe(
      'share of requests that become rollouts (OneMall: 2 %); L_RL is divided by this share of a batch',
    ),
  referenceSyncSteps: z.coerce
    .number()
    .int()
    .min(1)
    .default(500)
    .describe(
      'the reference policy is replaced by the newest published one when that is so many training steps ahead',
    ),
};
export type CommonConfig = z.infer<z.ZodObject<typeof commonShape>>;
type CommonKey = keyof CommonConfig;

/** `kafkaBrokers` -> `ONEMALL_KAFKA_BROKERS` */
export const envName = (key: string): string =>
  `ONEMALL_${key.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`;

/**
 * Reads and validates the common shape plus the service's own.
 * @throws ConfigError with one line per wrong key: where it came from, what was expected, what came.
 */
export function loadConfig<S extends z.ZodRawShape>(
  shape: S,
  env: Record<string, string | undefined> = process.env,
): z.infer<z.ZodObject<typeof commonShape & S>> {
  const all = { ...commonShape, ...shape };
  const file = env.ONEMALL_CONFIG;
  const fromFile = file ? readConfigFile(file) : {};
  const values: Record<string, unknown> = {};
  for (const key of Object.keys(all)) {
    const value = env[envName(key)] ?? fromFile[key];
    if (value !== undefined) values[key] = value;
  }
  const parsed = z.object(all).safeParse(values);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => {
      const key = String(issue.path[0] ?? '');
      const source =
        env[envName(key)] !== undefined
          ? envName(key)
          : fromFile[key] !== undefined
            ? `${key} in ${file}`
            : `${envName(key)} (not set)`;
      return `  ${source}: ${issue.message}, got ${JSON.stringify(mask(key, values[key]))}`;
    });
    throw new ConfigError(`The configuration is not valid:\n${lines.join('\n')}`);
  }
  const config = parsed.data as z.infer<z.ZodObject<typeof commonShape & S>>;
  refuseHalfAnAccess(config as CommonConfig);
  return config;
}

/** @throws ConfigError where one setting of an access to Kafka or the registry lacks the others */
function refuseHalfAnAccess(config: CommonConfig): void {
  const demand = (given: CommonKey, needed: CommonKey): void => {
    if (config[given] && !config[needed])
      throw new ConfigError(
        `The configuration is not valid:\n  ${envName(given)} is set and needs ${envName(needed)}, which is not`,
      );
  };
  demand('kafkaSaslMechanism', 'kafkaSaslUsername');
  demand('kafkaSaslMechanism', 'kafkaSaslPassword');
  demand('kafkaSaslUsername', 'kafkaSaslMechanism');
  demand('kafkaTlsCaFile', 'kafkaTls');
  demand('registryUsername', 'registryPassword');
}

function readConfigFile(file: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw new ConfigError(
      `ONEMALL_CONFIG names ${file}, which is not a readable JSON file: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** The configuration as it may be printed: secrets and passwords in addresses are hidden. */
export const printableConfig = (config: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(config).map(([k, v]) => [k, mask(k, v)]));

function mask(key: string, value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (/password|secret|token|accessKey/i.test(key)) return '***';
  return value.replace(/\/\/([^:/@]+):[^@/]*@/, '//$1:***@');
}
