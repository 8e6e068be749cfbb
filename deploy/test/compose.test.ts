/** docker-compose.yml against its schema, a linter, and the code that it starts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { commonShape, envName, loadConfig, openArtifactStore, S3ArtifactStore } from '@onemall/service-kit';
import Ajv from 'ajv';
import { parse } from 'yaml';

interface ComposeService {
  image: string;
  command?: string[];
  environment?: Record<string, string | number>;
  ports?: string[];
  depends_on?: Record<string, unknown> | string[];
}
const root = fileURLToPath(new URL('../../', import.meta.url));
const text = readFileSync(`${root}docker-compose.yml`, 'utf8');
const compose = parse(text, { merge: true }) as { services: Record<string, ComposeService> };
const ours = Object.entries(compose.services).filter(([, s]) => s.image.startsWith('onemall-pipeline'));

test('fits the compose schema', () => {
  const schemaFile = createRequire(import.meta.url)
    .resolve('dclint/package.json')
    .replace('package.json', 'schemas/compose.schema.json');
  const schema = JSON.parse(readFileSync(schemaFile, 'utf8')) as Record<string, unknown>;
  delete schema.$schema;
  const ajv = new Ajv({ strict: false, validateFormats: false });
  assert.ok(ajv.validate(schema, compose), ajv.errorsText());
  assert.equal(ajv.validate(schema, { services: { x: { imagee: 1 } } }), false);
});

test('the linter has nothing to say', () => {
  const { status, stdout } = spawnSync(
    `${root}node_modules/.bin/dclint`,
    ['docker-compose.yml', '--max-warnings', '0'],
    {
      cwd: root,
      encoding: 'utf8',
    },
  );
  assert.equal(status, 0, stdout);
});

test('commands name files that exist', () => {
  for (const [name, service] of ours)
    assert.ok(existsSync(root + service.command!.at(-1)!), `${name}: ${service.command}`);
});

/** Read by the loader of the configuration, and by the C library. */
const NOT_OURS = new Set(['ONEMALL_CONFIG', 'MALLOC_ARENA_MAX']);

test('every variable is one that the service reads', async () => {
  const common = new Set(Object.keys(commonShape).map(envName));
  for (const [name, service] of ours) {
    const folder = service.command!.at(-1)!.replace(/\/src\/.*/, '');
    const configFile = `${root}${folder}/src/config.ts`;
    const known = new Set(common);
    if (existsSync(configFile)) {
      const module = (await import(configFile)) as Record<string, unknown>;
      for (const shape of Object.values(module))
        if (shape && typeof shape === 'object') for (const key of Object.keys(shape)) known.add(envName(key));
    }
    for (const variable of Object.keys(service.environment ?? {}))
      if (!NOT_OURS.has(variable)) assert.ok(known.has(variable), `${name} does not read ${variable}`);
  }
});

test('images are the versions that npm start runs', () => {
  const pom = readFileSync(globSync(`${root}packages/stack/**/pom.xml`)[0]!, 'utf8');
  const version = (property: string): string => pom.match(new RegExp(`<${property}>(.*)</${property}>`))![1]!;
  assert.equal(compose.services.kafka!.image, `apache/kafka:${version('kafka.version')}`);
  assert.equal(compose.services.registry!.image, `apicurio/apicurio-registry:${version('apicurio.version')}`);
  const dockerfile = readFileSync(`${root}Dockerfile`, 'utf8');
  const { devDependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as {
    devDependencies: { node: string };
  };
  assert.match(dockerfile, new RegExp(`FROM node:${devDependencies.node}-`));
});

test('addresses name services, and the ports that they listen on', () => {
  const listens = (service: ComposeService): Set<string> =>
    new Set(
      Object.entries(service.environment ?? {})
        .filter(([k]) => k.endsWith('_PORT'))
        .map(([, v]) => String(v)),
    );
  const foreign: Record<string, string> = {
    kafka: '9092',
    registry: '8080',
    redis: '6379',
    clickhouse: '8123',
    minio: '9000',
  };
  for (const [name, service] of ours) {
    for (const value of Object.values(service.environment ?? {}).map(String)) {
      for (const [, host, port] of value.matchAll(/(?:\/\/|^)([a-z][a-z-]*):(\d+)/g)) {
        const target = compose.services[host!];
        assert.ok(target, `${name} names ${host}, which is no service`);
        assert.ok(
          foreign[host!] === port || listens(target).has(port!),
          `${name}: ${host} does not listen on ${port}`,
        );
      }
    }
  }
});

test('artifacts go to a bucket that MinIO has, with its credentials', () => {
  const minio = compose.services.minio as ComposeService & { entrypoint: string[] };
  const { MINIO_ROOT_USER: user, MINIO_ROOT_PASSWORD: password } = minio.environment!;
  for (const [name, { environment = {} }] of ours) {
    if (environment.ONEMALL_CONFIG === undefined) continue;
    const bucket = /^s3:\/\/([^/]+)\//.exec(String(environment.ONEMALL_ARTIFACTS_URI))![1]!;
    assert.match(minio.entrypoint.join(' '), new RegExp(`mkdir -p /data/${bucket} `), name);
    assert.equal(environment.ONEMALL_S3_ACCESS_KEY_ID, user, name);
    assert.equal(environment.ONEMALL_S3_SECRET_ACCESS_KEY, password, name);
    const stored = openArtifactStore(
      loadConfig(
        {},
        Object.fromEntries(
          Object.entries(environment).flatMap(([k, v]) => (k === 'ONEMALL_CONFIG' ? [] : [[k, String(v)]])),
        ),
      ),
    );
    assert.ok(stored instanceof S3ArtifactStore);
  }
});

test('ports are published on loopback only', () => {
  for (const [name, { ports = [] }] of Object.entries(compose.services))
    for (const port of ports) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/, name);
});

test('Prometheus asks every service on its port', () => {
  const { scrape_configs } = parse(readFileSync(`${root}deploy/prometheus.yml`, 'utf8')) as {
    scrape_configs: { static_configs: { targets: string[] }[] }[];
  };
  const targets = scrape_configs.flatMap((s) => s.static_configs.flatMap((c) => c.targets)).sort();
  const withoutMetrics = ['topics', 'bull-board', 'dashboard'];
  const expected = ours
    .filter(([n]) => !withoutMetrics.includes(n))
    .map(([n, s]) => `${n}:${s.environment!.ONEMALL_HTTP_PORT}`);
  assert.deepEqual(targets, expected.sort());
});

test('dashboard and alerts name metrics that the code sets', () => {
  const code = globSync(['services/*/src/**/*.ts', 'apps/*/src/**/*.ts', 'packages/service-kit/src/*.ts'], {
    cwd: root,
  })
    .map((file) => readFileSync(root + file, 'utf8'))
    .join('\n');
  const watched =
    readFileSync(`${root}deploy/grafana/dashboards/onemall.json`, 'utf8') +
    readFileSync(`${root}deploy/alerts.yml`, 'utf8');
  const metrics = new Set(
    [...watched.matchAll(/onemall_[a-z0-9_]+/g)].map(([m]) => m.replace(/_bucket$/, '')),
  );
  assert.ok(metrics.size > 8);
  for (const metric of metrics) {
    const gauge = metric.replace(/^onemall_/, '');
    const levels = gauge.replace(/_\d$/, '_');
    const dropped = /^rl_dropped_(\w+)$/.exec(gauge)?.[1];
    assert.ok(
      code.includes(metric) ||
        code.includes(`'${gauge}'`) ||
        code.includes(`\`${levels}$`) ||
        code.includes(`'${levels}`) ||
        (code.includes('`rl_dropped_$') && code.includes(`'${dropped}'`)),
      `no code sets ${metric}`,
    );
  }
});

test('the runbook of every alert is there, with the section that it names', () => {
  const { groups } = parse(readFileSync(`${root}deploy/alerts.yml`, 'utf8')) as {
    groups: { rules: { alert: string; annotations: { runbook: string } }[] }[];
  };
  for (const { alert, annotations } of groups.flatMap((g) => g.rules)) {
    const [file, section] = annotations.runbook.split('#');
    const headings = readFileSync(root + file!, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('#'))
      .map((line) =>
        line
          .replace(/^#+ /, '')
          .toLowerCase()
          .replaceAll(/[^\w -]/g, '')
          .replaceAll(' ', '-'),
      );
    assert.ok(section === undefined || headings.includes(section), `${alert}: ${file} has no #${section}`);
  }
});
