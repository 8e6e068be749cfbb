/** What tests of the TensorFlow library make of how setting it up went. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import {
  type SetupOutcome,
  setupLog,
  whyNoTensorflow,
  writeSetupOutcome,
} from '../src/tensorflow/setup-outcome.ts';

const SCRIPT = path.resolve(import.meta.dirname, '../../../scripts/setup-tensorflow.ts');
const isLinux = process.platform === 'linux' && process.arch === 'x64';

function newFolder(t: { after(done: () => void): void }): string {
  const parent = mkdtempSync(path.join(tmpdir(), 'onemall-tensorflow-'));
  t.after(() => rmSync(parent, { recursive: true }));
  return path.join(parent, 'tensorflow');
}

test('tests of the library are skipped where it cannot be had or is on its way, and fail where it could not be built', (t) => {
  const folder = newFolder(t);
  assert.match(whyNoTensorflow(folder)!, /no TensorFlow in .*: npm run setup:tensorflow gets it/);
  writeSetupOutcome(folder, 'running');
  assert.match(whyNoTensorflow(folder)!, /still being set up/);
  const { pid } = spawnSync(process.execPath, ['--version']);
  writeFileSync(`${folder}.setup.json`, JSON.stringify({ state: 'running', reason: '', pid }));
  assert.match(whyNoTensorflow(folder)!, /was stopped before its end/);
  writeSetupOutcome(folder, 'cannot be had', 'make --version does not run here');
  assert.match(whyNoTensorflow(folder)!, /cannot be had: make --version does not run here/);
  writeSetupOutcome(folder, 'failed', 'node failed (exit code 2)');
  assert.throws(
    () => whyNoTensorflow(folder),
    /failed: node failed \(exit code 2\)\. npm run setup:tensorflow/,
  );
  writeFileSync(setupLog(folder), 'earlier\nfatal error: no such header\n');
  assert.throws(() => whyNoTensorflow(folder), /ends with\nearlier\nfatal error: no such header$/);

  mkdirSync(path.join(folder, 'node_modules'), { recursive: true });
  assert.throws(() => whyNoTensorflow(folder), /failed/, 'what stands there is what did not work');
  writeSetupOutcome(folder, 'installed');
  assert.equal(whyNoTensorflow(folder), null);
});

/** Sets up with these programs alone. */
function setUp(
  folder: string,
  programs: Record<string, string>,
): { status: number | null; outcome: SetupOutcome } {
  const bin = `${folder}-bin`;
  mkdirSync(bin);
  for (const [name, lines] of Object.entries(programs)) {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${lines}\n`);
    chmodSync(path.join(bin, name), 0o755);
  }
  const { status } = spawnSync(process.execPath, [SCRIPT], {
    env: { PATH: bin, ONEMALL_TENSORFLOW: folder },
  });
  return { status, outcome: JSON.parse(readFileSync(`${folder}.setup.json`, 'utf8')) as SetupOutcome };
}

test('setting up leaves its outcome: without python there is no wheel', (t) => {
  const folder = newFolder(t);
  const { status, outcome } = setUp(folder, {});
  assert.equal(status, 3);
  assert.equal(outcome.state, 'cannot be had');
  assert.match(outcome.reason, isLinux ? /python3 -m pip --version does not run here/ : /for Linux on x64/);
});

test('setting up leaves its outcome: a wheel that does not unpack is a failure', { skip: !isLinux }, (t) => {
  const folder = newFolder(t);
  const python = `
case "$*" in
  *download*) for last; do :; done; /bin/mkdir -p "$last"; : > "$last/tensorflow.whl" ;;
  *zipfile*) exit 5 ;;
esac`;
  const { status, outcome } = setUp(folder, { python3: python, make: '', 'c++': '', npm: '' });
  assert.equal(status, 1);
  assert.equal(outcome.state, 'failed');
  assert.match(outcome.reason, /python3 failed \(exit code 5\)/);
  assert.throws(() => whyNoTensorflow(folder), /exit code 5/);
  const left = readdirSync(path.dirname(folder)).filter((name) => name.endsWith('.tmp'));
  assert.deepEqual(left, [], 'nothing half-made stays');
});
