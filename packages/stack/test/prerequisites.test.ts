import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { findCommand, findJava, majorOf, missingLines } from '../src/index.ts';

const java = { executable: '/j/bin/java', major: 25, version: '25.0.3' };
const all = { java, foundOlder: null, maven: '/bin/mvn', downloaded: false, docker: false };

test('nothing is said when nothing is missing', () => {
  assert.deepEqual(missingLines(all), []);
  assert.deepEqual(missingLines({ ...all, maven: null, downloaded: true }), [], 'Maven only downloads');
});

test('each missing thing gets one line that says what to install', () => {
  const lines = missingLines({ ...all, java: null, maven: null });
  assert.equal(lines.length, 2);
  assert.match(lines[0]!, /^Java 21 or newer is missing: install it .*apt-get install openjdk-21/);
  assert.match(lines[1]!, /^Maven is missing.*apt-get install maven/);
});

test('an older Java is named, so that nobody wonders', () => {
  assert.match(missingLines({ ...all, java: null, foundOlder: '17.0.15' })[0]!, /\(found only 17\.0\.15\)/);
});

test('Docker is offered where it is there and Java is not', () => {
  const lines = missingLines({ ...all, java: null, docker: true });
  assert.match(lines.at(-1)!, /docker compose up/);
  assert.deepEqual(missingLines({ ...all, docker: true }), []);
});

test('versions of old and new Java are read', () => {
  assert.equal(majorOf('1.8.0_402'), 8);
  assert.equal(majorOf('17.0.15'), 17);
  assert.equal(majorOf('25-ea'), 25);
  assert.equal(majorOf('nonsense'), 0);
});

test('Java is found through JAVA_HOME and ONEMALL_JAVA_HOME, which comes first', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const install = (name: string, version: string): string => {
    const home = path.join(folder, name);
    mkdirSync(path.join(home, 'bin'), { recursive: true });
    writeFileSync(path.join(home, 'bin', 'java'), '#!/bin/sh\n');
    chmodSync(path.join(home, 'bin', 'java'), 0o755);
    writeFileSync(path.join(home, 'release'), `JAVA_VERSION="${version}"\n`);
    return home;
  };
  const old = install('old', '21.0.1');
  const newer = install('new', '99.0.1');
  const [first] = findJava({ JAVA_HOME: newer, PATH: '' });
  assert.deepEqual(first, { executable: path.join(newer, 'bin', 'java'), major: 99, version: '99.0.1' });
  assert.equal(findJava({ JAVA_HOME: newer, ONEMALL_JAVA_HOME: old, PATH: '' })[0]!.major, 21);
  assert.equal(findCommand('java', { PATH: path.join(old, 'bin') }), path.join(old, 'bin', 'java'));
  assert.equal(findCommand('java', { PATH: folder }), null);
});
