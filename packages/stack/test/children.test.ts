import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import {
  Child,
  endStale,
  freePorts,
  Guardian,
  isKafkaReady,
  isPortFree,
  processStart,
  recordedProcess,
  recordProcess,
  waitFor,
} from '../src/index.ts';

function setUp(t: { after(done: () => void): void }): { folder: string; guardian: Guardian } {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  const guardian = new Guardian();
  t.after(() => {
    guardian.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { folder, guardian };
}
const gone = (pid: number) =>
  waitFor(() => processStart(pid) === null, { timeoutMs: 20_000, what: `process ${pid} to end` });

test('a child writes its log, is stopped by SIGTERM, and its memory is known meanwhile', async (t) => {
  const { folder, guardian } = setUp(t);
  const logFile = path.join(folder, 'x.log');
  writeFileSync(logFile, 'of the last run\n');
  const child = new Child({
    name: 'x',
    command: 'sh',
    args: ['-c', 'echo hello; echo oops >&2; sleep 1000 & wait'],
    cwd: folder,
    logFile,
    kind: 'service',
    guardian,
  });
  await waitFor(() => child.logTail().includes('oops'), { timeoutMs: 10_000, what: 'the log' });
  assert.equal(child.logTail(1), 'oops');
  if (process.platform === 'linux') assert.ok(child.rssBytes() > 10_000);
  assert.equal((await child.stop()).signal, 'SIGTERM');
  assert.equal(child.rssBytes(), 0);
  assert.equal(readFileSync(`${logFile}.1`, 'utf8'), 'of the last run\n', 'the older log is kept beside');
});

test('a child that ignores SIGTERM is killed after a while', async (t) => {
  const { folder, guardian } = setUp(t);
  const child = new Child({
    name: 'stubborn',
    command: process.execPath,
    args: ['-e', "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('up')"],
    cwd: folder,
    logFile: path.join(folder, 's.log'),
    kind: 'service',
    guardian,
  });
  await waitFor(() => child.logTail() === 'up', { timeoutMs: 10_000, what: 'the child' });
  assert.equal((await child.stop(100)).signal, 'SIGKILL');
});

test('a command that does not exist is an exit, not a crash', async (t) => {
  const { folder, guardian } = setUp(t);
  const child = new Child({
    name: 'none',
    command: '/no/such/command',
    args: [],
    cwd: folder,
    logFile: path.join(folder, 'n.log'),
    kind: 'service',
    guardian,
  });
  assert.equal((await child.exited).code, 127);
});

test('children and the temporary folder of a killed launcher do not stay', async (t) => {
  const { folder } = setUp(t);
  const doomed = path.join(folder, 'onemall-test-doomed');
  mkdirSync(doomed);
  const program = `
    import { Child, Guardian } from ${JSON.stringify(path.resolve(import.meta.dirname, '../src/index.ts'))};
    const guardian = new Guardian();
    guardian.removeFolder(${JSON.stringify(doomed)});
    const start = (kind) => new Child({ name: kind, command: 'sleep', args: ['1000'], cwd: '/', logFile: ${JSON.stringify(`${folder}/`)} + kind, kind, guardian });
    console.log(start('service').pid + ' ' + start('stack').pid);
    setInterval(() => {}, 1000);
  `;
  const launcher = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise<string>((resolve) =>
    launcher.stdout.once('data', (bytes: Buffer) => resolve(bytes.toString())),
  );
  const pids = line.trim().split(' ').map(Number);
  assert.equal(pids.length, 2);
  launcher.kill('SIGKILL');
  for (const pid of pids) await gone(pid);
  await waitFor(() => !existsSync(doomed), { timeoutMs: 20_000, what: 'the folder to be removed' });
});

test('what an earlier run left behind is stopped; a stranger with its old id is not', async (t) => {
  const { folder } = setUp(t);
  const left = spawn('sleep', ['1000'], { stdio: 'ignore' });
  const stranger = spawn('sleep', ['1000'], { stdio: 'ignore' });
  t.after(() => stranger.kill());
  recordProcess(folder, 'left', left.pid!);
  writeFileSync(path.join(folder, 'old.pid'), JSON.stringify({ pid: stranger.pid, start: '1' }));
  assert.equal(recordedProcess(path.join(folder, 'left.pid')), left.pid);
  assert.equal(recordedProcess(path.join(folder, 'old.pid')), null);
  const said: string[] = [];
  await endStale(folder, (line) => said.push(line));
  assert.equal(processStart(left.pid!), null);
  assert.notEqual(processStart(stranger.pid!), null);
  assert.deepEqual(said, [`stopping left (pid ${left.pid}) that an earlier run left behind`]);
});

test('free ports are different and free, and a taken one is seen', async (t) => {
  const ports = await freePorts(5);
  assert.equal(new Set(ports).size, 5);
  assert.equal(await isPortFree(ports[0]!), true);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(ports[0], '127.0.0.1', resolve));
  t.after(() => server.close());
  assert.equal(await isPortFree(ports[0]!), false);
  assert.equal(await isKafkaReady(ports[1]!), false, 'nobody is there');
});

test('waiting gives the answer back, and says what it waited for in vain', async () => {
  let asked = 0;
  assert.equal(
    await waitFor(() => ++asked >= 3 && 'yes', { timeoutMs: 5_000, what: 'three', intervalMs: 1 }),
    'yes',
  );
  assert.equal(await waitFor(() => 0, { timeoutMs: 5_000, what: 'zero is an answer' }), 0);
  await assert.rejects(
    waitFor(() => null, { timeoutMs: 5, what: 'a miracle', intervalMs: 1 }),
    /Waited 5 ms for a miracle/,
  );
  await assert.rejects(
    waitFor(() => false, {
      timeoutMs: 60_000,
      what: 'x',
      check: () => {
        throw new Error('it died');
      },
    }),
    /it died/,
  );
});
