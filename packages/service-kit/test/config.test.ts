import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { ConfigError, envName, loadConfig, printableConfig, z } from '../src/index.ts';

const shape = {
  answer: z.coerce.number().int().default(42),
  databaseUrl: z.url().default('http://localhost'),
  databasePassword: z.string().min(8).default('long enough'),
};

function configFile(t: { after(done: () => void): void }, text: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'config.json');
  writeFileSync(file, text);
  return file;
}

test('the environment wins over the file, the file over the default', (t) => {
  const file = configFile(t, '{"answer": 7, "namespace": "from-file"}');
  assert.equal(loadConfig(shape, {}).answer, 42);
  assert.equal(loadConfig(shape, { ONEMALL_CONFIG: file }).answer, 7);
  const both = loadConfig(shape, { ONEMALL_CONFIG: file, ONEMALL_ANSWER: '8' });
  assert.equal(both.answer, 8);
  assert.equal(both.namespace, 'from-file');
});

test('names of variables follow from names of keys', () => {
  assert.equal(envName('kafkaBrokers'), 'ONEMALL_KAFKA_BROKERS');
  assert.equal(envName('seed'), 'ONEMALL_SEED');
});

test('keys of other services in a shared file are no error', (t) => {
  const file = configFile(t, '{"somebodyElses": true}');
  assert.equal(loadConfig(shape, { ONEMALL_CONFIG: file }).answer, 42);
});

test('each wrong key gets one line: where it came from, what was expected, what came', (t) => {
  const file = configFile(t, '{"registryUrl": "not a url"}');
  assert.throws(
    () => loadConfig(shape, { ONEMALL_CONFIG: file, ONEMALL_ANSWER: 'many', ONEMALL_HTTP_PORT: '70000' }),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      const lines = error.message.split('\n').slice(1);
      assert.equal(lines.length, 3);
      assert.match(error.message, /ONEMALL_ANSWER: .*number.*got "many"/i);
      assert.match(error.message, /ONEMALL_HTTP_PORT: .*65535, got "70000"/);
      assert.ok(error.message.includes(`registryUrl in ${file}: `), error.message);
      return true;
    },
  );
});

test('a wrong secret is refused without being shown', () => {
  assert.throws(
    () =>
      loadConfig(shape, {
        ONEMALL_DATABASE_PASSWORD: 'hunter2',
        ONEMALL_DATABASE_URL: 'amqp//user:hunter2@host',
      }),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /ONEMALL_DATABASE_PASSWORD: .*got "\*\*\*"/);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    },
  );
});

test('the printed configuration hides secrets and passwords in addresses', () => {
  const printed = printableConfig({
    databasePassword: 'p1',
    apiToken: 'p2',
    s3AccessKey: 'p3',
    redisUrl: 'redis://me:p4@host:6379/0',
    kafkaBrokers: 'host:9092',
    seed: 3,
  });
  assert.deepEqual(printed, {
    databasePassword: '***',
    apiToken: '***',
    s3AccessKey: '***',
    redisUrl: 'redis://me:***@host:6379/0',
    kafkaBrokers: 'host:9092',
    seed: 3,
  });
});

test('a file that is missing or torn is named', (t) => {
  assert.throws(
    () => loadConfig(shape, { ONEMALL_CONFIG: '/no/such.json' }),
    /ONEMALL_CONFIG names \/no\/such\.json/,
  );
  const torn = configFile(t, '{"answer": ');
  assert.throws(() => loadConfig(shape, { ONEMALL_CONFIG: torn }), ConfigError);
});

test('scenarios may come as JSON text, and their windows must be positive', () => {
  const scenarios = JSON.stringify({ reels: { clickWindowMs: 1000, buyWindowMs: 2000 } });
  assert.deepEqual(loadConfig({}, { ONEMALL_SCENARIOS: scenarios }).scenarios.reels, {
    clickWindowMs: 1000,
    buyWindowMs: 2000,
  });
  const negative = JSON.stringify({ reels: { clickWindowMs: -1, buyWindowMs: 2000 } });
  assert.throws(() => loadConfig({}, { ONEMALL_SCENARIOS: negative }), ConfigError);
});

test('scenarios that are not JSON are a ConfigError too', () => {
  assert.throws(() => loadConfig({}, { ONEMALL_SCENARIOS: '{torn' }), ConfigError);
});

test('half an access to Kafka or the registry is refused by name', () => {
  const refused = (env: Record<string, string>, missing: string) =>
    assert.throws(() => loadConfig({}, env), new RegExp(`needs ${missing}, which is not`));
  refused({ ONEMALL_KAFKA_SASL_MECHANISM: 'plain' }, 'ONEMALL_KAFKA_SASL_USERNAME');
  refused(
    { ONEMALL_KAFKA_SASL_MECHANISM: 'plain', ONEMALL_KAFKA_SASL_USERNAME: 'me' },
    'ONEMALL_KAFKA_SASL_PASSWORD',
  );
  refused({ ONEMALL_KAFKA_SASL_USERNAME: 'me' }, 'ONEMALL_KAFKA_SASL_MECHANISM');
  refused({ ONEMALL_KAFKA_TLS_CA_FILE: 'ca.pem' }, 'ONEMALL_KAFKA_TLS');
  refused({ ONEMALL_REGISTRY_USERNAME: 'me' }, 'ONEMALL_REGISTRY_PASSWORD');
  assert.equal(loadConfig({}, { ONEMALL_KAFKA_TLS: 'true' }).kafkaTls, true);
  assert.equal(loadConfig({}, { ONEMALL_KAFKA_TLS: 'false' }).kafkaTls, false);
});
