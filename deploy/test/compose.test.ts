/** docker-compose.yml against its schema, a linter, and the code that it starts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  commonShape,
  envName,
  loadConfig,
  openArtifactStore,
  S3ArtifactStore,
  StageMeter,
} from '@onemall/service-kit';
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

const dashboard = JSON.parse(readFileSync(`${root}deploy/grafana/dashboards/onemall.json`, 'utf8')) as {
  panels: {
    id: number;
    title: string;
    targets?: { expr: string }[];
    gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
  }[];
  templating: { list: { query: { query: string } }[] };
};
const { groups } = parse(readFileSync(`${root}deploy/alerts.yml`, 'utf8')) as {
  groups: { rules: { alert: string; expr: string; annotations: { runbook: string } }[] }[];
};
const alerts = groups.flatMap((group) => group.rules);

/** Names of metrics in a PromQL expression: what is left of words without functions, labels and keywords. */
function metricsOf(expr: string): string[] {
  const bare = expr
    .replaceAll(/\{[^}]*\}|\[[^\]]*\]/g, ' ')
    .replaceAll(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, ' ');
  return [...bare.matchAll(/(?<![\w.])[a-z_:][\w:]*\b(?!\s*\()/gi)]
    .map(([word]) => word.replace(/_bucket$/, ''))
    .filter((word) => !['and', 'or', 'unless', 'bool', 'offset'].includes(word));
}

test('panels and alerts name metrics that some service publishes', async () => {
  const code = globSync(['services/*/src/**/*.ts', 'apps/*/src/**/*.ts', 'packages/service-kit/src/*.ts'], {
    cwd: root,
  })
    .map((file) => readFileSync(root + file, 'utf8'))
    .join('\n');
  const ofEveryProcess = await new StageMeter('any').registry.metrics();
  const isPublished = (metric: string): boolean => {
    if (!metric.startsWith('onemall_'))
      return metric === 'up' || ofEveryProcess.includes(`# TYPE ${metric} `);
    const gauge = metric.replace(/^onemall_(partition_)?/, '');
    if (ofEveryProcess.includes(`# TYPE ${metric} `) || code.includes(`'${gauge}'`)) return true;
    // Names that are put together: a level, a topic or a reason behind what they have in common.
    const level = /^(\w+_)\d$/.exec(gauge)?.[1];
    const [, dropped] = /^rl_dropped_(\w+)$/.exec(gauge) ?? [];
    const [, topic] = /^waits_for_(exposures|clicks|buys)$/.exec(gauge) ?? [];
    return (
      (level !== undefined && (code.includes(`\`${level}$`) || code.includes(`'${level}`))) ||
      (dropped !== undefined && code.includes('`rl_dropped_$') && code.includes(`'${dropped}'`)) ||
      (topic !== undefined && code.includes('`waits_for_$'))
    );
  };
  const asked = [
    ...alerts.map(({ alert, expr }) => ({ by: alert, metrics: metricsOf(expr) })),
    ...dashboard.panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ expr }) => ({ by: title, metrics: metricsOf(expr) })),
    ),
    ...dashboard.templating.list.map(({ query }) => ({
      by: query.query,
      metrics: [/^label_values\((\w+), \w+\)$/.exec(query.query)![1]!],
    })),
  ];
  for (const { by, metrics } of asked) {
    assert.ok(metrics.length > 0, `${by} asks for no metric`);
    for (const metric of metrics) assert.ok(isPublished(metric), `${by}: nobody publishes ${metric}`);
  }
  assert.deepEqual(metricsOf('sum by (le) (rate(a_bucket{b="c"}[1m])) > 2 and on (d) e == 0'), ['a', 'e']);
  for (const wrong of ['onemall_open_exposure', 'onemall_partition_no_such_thing', 'nodejs_nothing'])
    assert.equal(isPublished(wrong), false, wrong);
});

test('panels have ids of their own and do not cover each other', () => {
  const { panels } = dashboard;
  assert.equal(new Set(panels.map((panel) => panel.id)).size, panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)} ${y + Math.floor(i / w)}`),
  );
  assert.equal(new Set(cells).size, cells.length);
});

test('the runbook of every alert is there, with the section that it names', () => {
  for (const { alert, annotations } of alerts) {
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
