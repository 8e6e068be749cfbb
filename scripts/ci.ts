/** What the CI runs: types, linter, import rules, generated code, then all tests. The last line is the tests'. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { findOrInstallRedis, REPOSITORY_ROOT } from '../packages/stack/src/index.ts';

process.env.CI ??= 'true';
const steps: [what: string, command: string, ...args: string[]][] = [
  ['types', 'tsc', '--noEmit'],
  ['linter', 'biome', 'check', '.'],
  ['import rules', 'npm', 'run', '--silent', 'check:imports'],
  ['generated code', 'npm', 'run', '--silent', 'check:generated'],
];

let failed = 0;
for (const [what, command, ...args] of steps) {
  const startedMs = performance.now();
  const { status, error } = spawnSync(command, args, { cwd: REPOSITORY_ROOT, stdio: 'inherit' });
  const took = `${((performance.now() - startedMs) / 1000).toFixed(1)} s`;
  console.log(`${status === 0 ? ' ok ' : 'FAIL'} ${what} (${took})${error ? `: ${error.message}` : ''}`);
  if (status !== 0) failed++;
}
if (!findOrInstallRedis((line) => console.log(line)))
  console.log('redis-server is neither here nor installable: the jobs are not tested');

const tests = spawnSync(process.execPath, [path.join(import.meta.dirname, 'test.ts'), 'all'], {
  cwd: REPOSITORY_ROOT,
  stdio: ['ignore', 'inherit', 'inherit'],
});
process.exit(failed > 0 ? 1 : (tests.status ?? 1));
