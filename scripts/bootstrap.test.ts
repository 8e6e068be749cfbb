import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

/** A clone in which npm ci has run and has not brought Node 24. */
const clone = mkdtempSync(path.join(tmpdir(), 'onemall-bootstrap-'));
after(() => rmSync(clone, { recursive: true, force: true }));
for (const folder of ['scripts', 'node_modules']) mkdirSync(path.join(clone, folder));
copyFileSync(path.join(import.meta.dirname, 'bootstrap.mjs'), path.join(clone, 'scripts', 'bootstrap.mjs'));
writeFileSync(path.join(clone, 'package-lock.json'), '{}');
writeFileSync(
  path.join(clone, 'node_modules', '.onemall-installed'),
  createHash('sha256').update('{}').digest('hex'),
);
writeFileSync(
  path.join(clone, 'entry.ts'),
  'const words: string[] = process.argv.slice(2); console.log(words);',
);

/** Runs it as on a host whose Node has this version. */
function bootstrap(version: string) {
  const versions = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });
    Object.defineProperty(process, 'version', { value: 'v${version}' });`;
  return spawnSync(
    process.execPath,
    [
      '--import',
      `data:text/javascript,${encodeURIComponent(versions)}`,
      'scripts/bootstrap.mjs',
      'entry.ts',
      'a',
    ],
    { cwd: clone, encoding: 'utf8' },
  );
}

test('a host without Node 24 from anywhere gets one line and exit code 1', () => {
  const { status, stdout, stderr } = bootstrap('22.4.0');
  assert.equal(status, 1);
  assert.equal(stdout, '');
  assert.match(
    stderr,
    /^OneMall Pipeline runs on Node 24, .* is missing: .* npm ci, .* this is v22\.4\.0\.\n$/,
  );
});

test('a host too old to begin with is told what it needs', () => {
  const { status, stderr } = bootstrap('18.0.0');
  assert.equal(status, 1);
  assert.match(stderr, /^OneMall Pipeline needs Node 20 or newer to begin with; this is v18\.0\.0\..*\n$/);
});

test("a host's own Node 24 runs the entry point with its arguments", () => {
  const { status, stdout, stderr } = bootstrap('24.0.0');
  assert.equal(status, 0, stderr);
  assert.equal(stdout, "[ 'a' ]\n");
});
