/** `npm start` as a newcomer runs it: cold state, by itself to its end; again from where it was; stopped by hand; reset. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { waitFor } from '@onemall/testkit';
import type { RunReport } from '../../apps/local-stack/src/report.ts';
import { processStart, REPOSITORY_ROOT } from '../../packages/stack/src/index.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
const state = path.join(folder, 'state');
after(() => rmSync(folder, { recursive: true, force: true }));

interface Launcher {
  process: ChildProcess;
  output: () => string;
  /** Exit code. */
  ended: Promise<number | null>;
}
function launch(command: 'start' | 'reset', ...flags: string[]): Launcher {
  const main = path.join(REPOSITORY_ROOT, 'apps/local-stack/src/main.ts');
  // When the tests were asked for, and whether they installed anything, says nothing of this start.
  const { ONEMALL_ASKED_MS: _asked, ONEMALL_INSTALLED: _installed, ...env } = process.env;
  const child = spawn(process.execPath, [main, command, '--state', state, ...flags], {
    cwd: REPOSITORY_ROOT,
    env,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (bytes: Buffer) => {
      output += bytes.toString();
    });
  return {
    process: child,
    output: () => output,
    ended: new Promise((resolve) => child.once('close', resolve)),
  };
}
const readReport = (name: string): RunReport => JSON.parse(readFileSync(path.join(folder, name), 'utf8'));

function assertNothingIsLeft(atLeast = 10): void {
  const records = readdirSync(path.join(state, 'run')).filter((n) => n.endsWith('.pid'));
  assert.ok(records.length >= atLeast, `processes were recorded: ${records}`);
  for (const name of records) {
    const { pid, start } = JSON.parse(readFileSync(path.join(state, 'run', name), 'utf8')) as {
      pid: number;
      start: string;
    };
    assert.notEqual(processStart(pid), start, `${name} still runs`);
  }
}

const ENOUGH_STEPS = 30;

async function timedRun(seconds: string): Promise<{ run: Launcher; code: number | null; report: RunReport }> {
  const run = launch('start', '--for', seconds, '--report', path.join(folder, 'first.json'), '--seed', '3');
  const code = await run.ended;
  assert.ok(existsSync(path.join(folder, 'first.json')), `no report, exit code ${code}:\n${run.output()}`);
  return { run, code, report: readReport('first.json') };
}

describe('npm start', { concurrency: 1 }, () => {
  let samplesBefore = 0;

  test('a first run ends by itself with every stage alive, a falling loss and samples equal to the oracle', async () => {
    let { run, code, report } = await timedRun('90');
    // A machine on which that time is too short for a falling loss gets more of it, and its run goes on from there.
    if (report.training.steps < ENOUGH_STEPS) ({ run, code, report } = await timedRun('300'));
    const told = `${run.output()}\n${JSON.stringify({ bars: report.bars, oracle: report.oracle }, null, 1)}`;
    // How fast the start was depends on what else this machine does; `npm start` itself holds that bar.
    const broken = report.bars.filter((b) => !b.ok && !b.name.includes('first trained sample'));
    assert.deepEqual(broken, [], told);
    assert.equal(code, report.ok ? 0 : 1, told);
    for (const name of [
      'stages without output',
      'dead letters',
      'training loss, last',
      'samples equal to the oracle',
    ])
      assert.ok(
        report.bars.some((b) => b.name === name),
        `no bar ${name}`,
      );
    assert.equal(report.source, 'simulator');
    assert.equal(report.deadLetters, 0);
    const { training } = report;
    assert.ok(training.steps > 0 && training.losses.length > 0);
    assert.ok(training.lossLast! < training.lossFirst!);
    assert.equal(training.sidAccuracy.length, 3);
    for (const name of ['simulator', 'sample-assembler', 'live-sid-updater', 'retriever', 'metrics-sink']) {
      assert.ok(report.stages[name]!.out > 0, name);
      assert.ok(report.stages[name]!.ratePerS > 0, name);
    }
    for (const name of ['sample-assembler', 'retriever', 'trainer-retriever'])
      assert.ok(report.stages[name]!.p99Ms! >= report.stages[name]!.p50Ms!, `latency of ${name}`);
    for (const name of ['kafka', 'registry', 'launcher', 'trainer-retriever', 'simulator'])
      assert.ok(report.peakRssBytes[name]! > 10_000_000, `memory of ${name}`);
    samplesBefore = report.stages['sample-assembler']!.out;
    assert.match(run.output(), /Dashboard: http:\/\/127\.0\.0\.1:\d+\//);
    assertNothingIsLeft();
  });

  test('the next start goes on from there, a second launcher is refused, and SIGTERM stops everything', async () => {
    assert.ok(samplesBefore > 0, 'the first run left samples');
    const run = launch('start', '--report', path.join(folder, 'second.json'), '--seed', '3');
    try {
      await waitFor(() => /samples out [1-9]/.test(run.output()), {
        timeoutMs: 180_000,
        what: 'samples of the second run',
        check: () => assert.equal(run.process.exitCode, null, run.output()),
      });
      const other = launch('start', '--for', '1');
      assert.equal(await other.ended, 1);
      assert.match(other.output(), /Another npm start is running in /);
      const reset = launch('reset');
      assert.equal(await reset.ended, 1);
      assert.match(reset.output(), /stop it first/);
    } finally {
      run.process.kill('SIGTERM');
    }
    assert.equal(await run.ended, 0, run.output());
    const report = readReport('second.json');
    assert.equal(report.deadLetters, 0, 'what the first run wrote can still be read');
    assertNothingIsLeft();
  });

  test('a registry that dies ends the run, with its name and log', async () => {
    const run = launch('start', '--only', 'metrics-sink');
    await waitFor(() => run.output().includes('Dashboard: '), {
      timeoutMs: 120_000,
      what: 'the dashboard of the third run',
      check: () => assert.equal(run.process.exitCode, null, run.output()),
    });
    const record = readFileSync(path.join(state, 'run', 'registry.pid'), 'utf8');
    process.kill((JSON.parse(record) as { pid: number }).pid, 'SIGKILL');
    assert.equal(await run.ended, 1, run.output());
    assert.match(
      run.output(),
      /registry ended \(SIGKILL\), and nothing works without it; its log: .*registry\.log/,
    );
    assertNothingIsLeft(1);
  });

  test('reset removes it all', async () => {
    const reset = launch('reset');
    assert.equal(await reset.ended, 0, reset.output());
    assert.equal(existsSync(state), false);
  });
});

test('a wrong flag is one line and exit code 2', async () => {
  const run = launch('start', '--for', 'ever');
  assert.equal(await run.ended, 2);
  assert.equal(run.output(), '--for takes a number of seconds above 0, got ever\n');
});
