import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseStartFlags, type StartFlags } from '../src/flags.ts';
import { AlreadyRunningError, lockFile, runningLauncher, takeLock } from '../src/lock.ts';
import { reset } from '../src/reset.ts';
import { readProfile, retentionOf, runSettings } from '../src/settings.ts';

function temporaryFolder(t: { after(done: () => void): void }): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('a second launcher in the same folder is refused by name', (t) => {
  const state = temporaryFolder(t);
  const giveBack = takeLock(state);
  assert.equal(runningLauncher(state), process.pid);
  assert.throws(
    () => takeLock(state),
    (error: unknown) =>
      error instanceof AlreadyRunningError &&
      error.message.includes(state) &&
      error.message.includes(`process ${process.pid}`) &&
      error.message.includes('--state'),
  );
  giveBack();
  assert.equal(runningLauncher(state), null);
  takeLock(state)();
});

test('a lock whose owner is gone, or whose id another process took, is taken over', (t) => {
  const state = temporaryFolder(t);
  mkdirSync(path.join(state, 'run'));
  for (const owner of [{ pid: process.pid, start: '1' }, { pid: 2 ** 22 + 1, start: '5' }, 'torn']) {
    writeFileSync(lockFile(state), JSON.stringify(owner));
    takeLock(state)();
  }
});

test('reset removes the folder, but not while a pipeline runs in it', async (t) => {
  const state = temporaryFolder(t);
  const giveBack = takeLock(state);
  await assert.rejects(
    reset(state, () => {}),
    AlreadyRunningError,
  );
  assert.equal(existsSync(state), true);
  giveBack();
  await reset(state, () => {});
  assert.equal(existsSync(state), false);
});

test('reset leaves a folder alone that is not the pipeline’s', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(path.join(folder, 'thesis.txt'), 'years of work');
  await assert.rejects(
    reset(folder, () => {}),
    /does not look like the pipeline's folder/,
  );
  assert.equal(existsSync(path.join(folder, 'thesis.txt')), true);
});

const flags = (...argv: string[]): StartFlags => parseStartFlags(argv) as StartFlags;
const ports = { retrieverPort: 8600, dashboardPort: 8080 };
const addresses = { brokers: 'b:1', registryUrl: 'http://r', redisUrl: null };

test('settings of a run are the demo profile, its addresses and its flags', () => {
  const profile = readProfile(path.join(import.meta.dirname, '../../../config/demo.json'));
  const settings = runSettings(profile, {
    flags: flags('--seed', '9', '--rate', '77'),
    addresses,
    ports,
    state: '/x',
  });
  assert.equal(settings.kafkaBrokers, 'b:1');
  assert.equal(settings.seed, 9);
  assert.equal(settings.simulatorRate, 77);
  assert.equal(settings.artifactsUri, '/x/artifacts');
  assert.equal('redisUrl' in settings, false);
  const retention = retentionOf(settings);
  assert.ok(retention.largestWindowMs <= 60_000, 'the demo shows final samples within a minute');
  assert.equal(retention.longestOutageMs, 24 * 3_600_000);
});

test('a replayed log leaves only its own scenario, so that nothing waits for the others', (t) => {
  const profile = readProfile(path.join(import.meta.dirname, '../../../config/demo.json'));
  const facts = { addresses, ports, state: '/x' };
  const settings = runSettings(profile, { ...facts, flags: flags('--source', 'trivago', '--data', '/logs') });
  assert.deepEqual(Object.keys(settings.scenarios as object), ['product_card']);
  assert.equal(settings.replaySource, 'trivago');
  assert.equal(settings.replayData, '/logs');
  const mapping = path.join(temporaryFolder(t), 'mine.json');
  const own = () =>
    runSettings(profile, { ...facts, flags: flags('--source', '/my.csv', '--mapping', mapping) });
  writeFileSync(mapping, '{"scenario": "short_video"}');
  assert.deepEqual(Object.keys(own().scenarios as object), ['short_video']);
  assert.equal(own().replayMapping, mapping);
  writeFileSync(mapping, '{"scenario": "billboard"}');
  assert.throws(own, /names scenario "billboard": expected one of product_card, short_video, live_stream/);
});

test('a broken profile is named', (t) => {
  const file = path.join(temporaryFolder(t), 'demo.json');
  writeFileSync(file, '{');
  assert.throws(() => readProfile(file), new RegExp(`${file} is not a readable JSON file`));
});
