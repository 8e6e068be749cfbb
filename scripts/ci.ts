/**
 * What the CI runs: types, linter, import rules, generated code, then all tests. The last line is the tests'. TensorFlow's library is
 * set up beside them, where a wheel can be had: half a minute of CPU the first time on a machine, for one of the later tests. It
 * leaves its outcome for that test.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, openSync } from 'node:fs';
import path from 'node:path';
import { setupLog, tensorflowFolder } from '@onemall/learning/tensorflow';
import { findOrInstallRedis, REPOSITORY_ROOT } from '../packages/stack/src/index.ts';

process.env.CI ??= 'true';
process.env.TURBO_TELEMETRY_DISABLED = '1';

const log = setupLog(tensorflowFolder());
mkdirSync(path.dirname(log), { recursive: true });
const output = openSync(log, 'w');
const setUp = spawn(process.execPath, ['scripts/setup-tensorflow.ts', '--within', '300'], {
  ...{ cwd: REPOSITORY_ROOT, stdio: ['ignore', output, output], detached: true },
});

// Types, linter, import rules and generated code side by side; turbo.json lists them.
const checks = spawnSync('npm', ['run', '--silent', 'check'], { cwd: REPOSITORY_ROOT, stdio: 'inherit' });
if (!findOrInstallRedis((line) => console.log(line)))
  console.log('redis-server is neither here nor installable: the jobs are not tested');

const tests = spawnSync('npm', ['test', '--silent'], {
  cwd: REPOSITORY_ROOT,
  stdio: ['ignore', 'inherit', 'inherit'],
});
try {
  if (setUp.pid !== undefined) process.kill(-setUp.pid); // with what it started, if it still runs
} catch {
  // it has ended
}
process.exit(checks.status === 0 ? (tests.status ?? 1) : 1);
