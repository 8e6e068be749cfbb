import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkFiles } from '../src/check-files.ts';
import { FlagError } from '../src/flags.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'onemall-flags-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = (...names: string[]): string => {
  const at = path.join(folder, ...names);
  mkdirSync(path.dirname(at), { recursive: true });
  writeFileSync(at, '');
  return at;
};
const logs = file('logs.csv');
const mapping = file('map.json');
file('flat', 't_alibaba_data.csv');
file('deep', 'trivago', 'trivago_val_100k.parquet');
const at = (name: string): string => path.join(folder, name);

test('what is there is taken', () => {
  for (const flags of [
    { source: 'simulator', data: null, mapping: null },
    { source: 'tmall', data: at('flat'), mapping: null },
    { source: 'trivago', data: at('deep'), mapping },
    { source: logs, data: null, mapping },
    { source: folder, data: null, mapping: 'tmall' },
    { source: 'kafka:orders', data: null, mapping },
  ])
    assert.doesNotThrow(() => checkFiles(flags), JSON.stringify(flags));
});

const ABSENT: [what: string, flags: Parameters<typeof checkFiles>[0], says: RegExp][] = [
  ['a file of logs', { source: at('no.csv'), data: null, mapping }, /--source takes .* none at .*no\.csv$/],
  ['a data folder', { source: 'tmall', data: at('no'), mapping: null }, /--data names .* not there: .*no$/],
  [
    'the file in the data folder',
    { source: 'tmall', data: at('deep'), mapping: null },
    /--data must name the folder that holds t_alibaba_data\.csv: it is not in .*deep$/,
  ],
  ['a mapping', { source: logs, data: null, mapping: at('no.json') }, /--mapping names .*no\.json$/],
  [
    'a ready mapping',
    { source: logs, data: null, mapping: 'amazon' },
    /--mapping amazon is no ready mapping .*\.\/amazon\.json$/,
  ],
];
for (const [what, flags, says] of ABSENT)
  test(`${what} that is not there is named`, () => {
    assert.throws(
      () => checkFiles(flags),
      (error: unknown) => error instanceof FlagError && says.test(error.message),
    );
  });

test('npm start then ends with that one line and exit code 2, before anything is started', () => {
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [main, 'start', '--state', at('state'), '--source', 'tmall', '--data', at('no')],
    { encoding: 'utf8' },
  );
  assert.equal(status, 2, stderr);
  assert.equal(stdout, '');
  assert.equal(stderr, `--data names a folder that is not there: ${at('no')}\n`);
});
