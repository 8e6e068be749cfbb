import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { ConfigError } from '@onemall/service-kit';
import { readMapping } from '../src/adapters/mapping-file.ts';
import { READY_SOURCES, replayConfig } from '../src/config.ts';
import { temporaryFolder, writeCsv } from './fixtures.ts';

const refused = (env: Record<string, string>, pattern: RegExp): void =>
  assert.throws(
    () => replayConfig(env),
    (error) => error instanceof ConfigError && pattern.test(error.message),
  );

test('a ready source is its file in the data folder, or in a folder of its name, with its mapping', async (t) => {
  const folder = await temporaryFolder(t);
  const { file } = READY_SOURCES.tmall!;
  await mkdir(path.join(folder, 'tmall'));
  const nested = await writeCsv(path.join(folder, 'tmall'), file, ['x']);
  for (const data of [folder, path.join(folder, 'tmall')]) {
    const config = replayConfig({ ONEMALL_REPLAY_SOURCE: 'tmall', ONEMALL_REPLAY_DATA: data });
    assert.deepEqual([config.replaySource, config.replayMapping], [nested, 'tmall']);
  }
  refused(
    { ONEMALL_REPLAY_SOURCE: 'trivago', ONEMALL_REPLAY_DATA: folder },
    /no trivago_val_100k\.parquet in/,
  );
  refused({ ONEMALL_REPLAY_SOURCE: 'trivago' }, /needs replayData \(--data DIR\)/);
});

test('every ready source has a mapping of its scenario, and every mapping parses', () => {
  for (const { mapping, scenario } of Object.values(READY_SOURCES))
    assert.equal(readMapping(mapping).scenario, scenario);
  for (const file of readdirSync(new URL('../mappings/', import.meta.url)))
    assert.equal(`${readMapping(file.replace('.json', '')).name}.json`, file);
});

test('a source of one’s own needs a mapping; only topics can be followed', () => {
  refused({ ONEMALL_REPLAY_SOURCE: 'my.csv' }, /needs replayMapping \(--mapping FILE\)/);
  refused(
    { ONEMALL_REPLAY_SOURCE: 'my.csv', ONEMALL_REPLAY_MAPPING: 'm.json', ONEMALL_REPLAY_FOLLOW: 'true' },
    /needs replaySource kafka:TOPIC/,
  );
  refused({}, /ONEMALL_REPLAY_SOURCE/);
});
