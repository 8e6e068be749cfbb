/**
 * Runs the tests: `node scripts/test.ts quick|all [--only PATTERN]`
 *   quick  every *.test.ts that needs no broker
 *   all    those, then *.integration.test.ts on one real stack that is started once, then the random schedules on a stack of
 *          their own, then the end-to-end runs
 * The last line is `N passed, N failed, N skipped`; the exit code is 1 when a test failed or none ran.
 */
import { globSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { Guardian, type LocalStack, REPOSITORY_ROOT, startLocalStack } from '../packages/stack/src/index.ts';
import { FileResult, type Totals } from './test-progress.ts';

interface Phase {
  name: string;
  files: string[];
  concurrency: number;
  fileTimeoutMs: number;
}

const FOLDERS = ['packages', 'services', 'apps', 'deploy', 'scripts', 'benchmarks', 'tests'];

function findPhases(kind: string, only: RegExp | null): Phase[] {
  const files = FOLDERS.flatMap((folder) =>
    globSync(`${folder}/**/*.test.ts`, {
      cwd: REPOSITORY_ROOT,
      exclude: (name) => name === 'node_modules' || name === '.data',
    }),
  )
    .filter((file) => !only || only.test(file))
    .sort();
  const needsStack = (file: string): boolean => file.endsWith('.integration.test.ts');
  const endToEnd = (file: string): boolean => file.startsWith('tests/e2e/');
  // Runs several instances of its own at a time, and takes minutes.
  const schedules = (file: string): boolean => file === 'tests/integrity/schedules.integration.test.ts';
  const phases: Phase[] = [
    { name: 'quick', files: files.filter((f) => !needsStack(f)), concurrency: 2, fileTimeoutMs: 180_000 },
  ];
  if (kind === 'all')
    phases.push(
      {
        name: 'integration',
        files: files.filter((f) => needsStack(f) && !endToEnd(f) && !schedules(f)),
        concurrency: 2,
        fileTimeoutMs: 360_000,
      },
      { name: 'schedules', files: files.filter(schedules), concurrency: 1, fileTimeoutMs: 1_500_000 },
      {
        name: 'end to end',
        files: files.filter((f) => needsStack(f) && endToEnd(f)),
        concurrency: 1,
        fileTimeoutMs: 1_200_000,
      },
    );
  return phases.filter((p) => p.files.length > 0);
}

async function runPhase(phase: Phase, totals: Totals): Promise<void> {
  console.log(`\n${phase.name}: ${phase.files.length} files`);
  const waiting = [...phase.files];
  const running = new Map<string, { since: number; result: FileResult }>();
  const heartbeat = setInterval(() => {
    const now = performance.now();
    const slow = [...running].filter(([, { since }]) => now - since > HEARTBEAT_MS);
    for (const [file, { since, result }] of slow) {
      const { passed, failed } = result.totals;
      console.log(` ... ${file} runs for ${seconds(now - since)}: ${passed} passed, ${failed} failed so far`);
    }
  }, HEARTBEAT_MS);
  const worker = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const since = performance.now();
      const result = new FileResult(path.join(REPOSITORY_ROOT, file));
      running.set(file, { since, result });
      await runFile(result, phase.fileTimeoutMs);
      running.delete(file);
      const { passed, failed, skipped } = result.totals;
      totals.passed += passed;
      totals.failed += failed;
      totals.skipped += skipped;
      const counts = [`${passed} passed`, failed && `${failed} failed`, skipped && `${skipped} skipped`];
      const verdict = failed > 0 ? 'FAIL' : ' ok ';
      console.log(
        `${verdict} ${file}: ${counts.filter(Boolean).join(', ')} (${seconds(performance.now() - since)})`,
      );
      for (const line of result.details()) console.log(line);
    }
  };
  await Promise.all(Array.from({ length: phase.concurrency }, worker));
  clearInterval(heartbeat);
}

/** One file in its own process. The runner's timeout ends a test but not a process that goes on; the signal does. */
async function runFile(result: FileResult, fileTimeoutMs: number): Promise<void> {
  const tooLong = AbortSignal.timeout(fileTimeoutMs);
  const stream = run({ files: [result.file], cwd: REPOSITORY_ROOT, timeout: fileTimeoutMs, signal: tooLong });
  for await (const event of stream) result.take(event);
  if (tooLong.aborted)
    result.note(`The file took longer than ${seconds(fileTimeoutMs)}, or left something open, and was ended`);
}

const HEARTBEAT_MS = 30_000;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

async function withStack(work: () => Promise<void>): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-test-'));
  const guardian = new Guardian();
  guardian.removeFolder(folder);
  let stack: LocalStack | undefined;
  try {
    console.log('\nStarting Kafka, the schema registry and Redis');
    stack = await startLocalStack({
      dataDir: folder,
      guardian,
      redis: true,
      onProgress: (line) => console.log(`  ${line}`),
    });
    const { brokers, registryUrl, redisUrl } = stack;
    if (!redisUrl) console.log('  no redis-server here: the tests of the jobs will say so');
    process.env.ONEMALL_TEST_STACK = JSON.stringify({ brokers, registryUrl, redisUrl });
    await work();
  } finally {
    await stack?.stop();
    await rm(folder, { recursive: true, force: true });
    guardian.close();
  }
}

const { values, positionals } = parseArgs({
  options: { only: { type: 'string' } },
  allowPositionals: true,
});
const kind = positionals[0] ?? 'all';
if (kind !== 'all' && kind !== 'quick') {
  console.error(`Expected "quick" or "all", got ${kind}`);
  process.exit(2);
}
const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
const startedMs = performance.now();
const phases = findPhases(kind, values.only ? new RegExp(values.only) : null);
try {
  const [quick, rest] = [phases.filter((p) => p.name === 'quick'), phases.filter((p) => p.name !== 'quick')];
  for (const phase of quick) await runPhase(phase, totals);
  if (rest.length > 0)
    await withStack(async () => {
      for (const phase of rest) await runPhase(phase, totals);
    });
} catch (error) {
  console.error(`\nThe tests could not run: ${(error as Error).message}`);
  totals.failed++;
}
console.log(`\n${Math.round((performance.now() - startedMs) / 1000)} s`);
if (totals.passed + totals.failed === 0)
  console.log(values.only ? `No test file matches ${values.only}` : 'No test ran');
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
// A test that left a handle open must not keep the runner.
process.exit(totals.failed > 0 || totals.passed === 0 ? 1 : 0);
