import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { readFolder } from '../../src/sequences/adapters/read-folder.ts';
import {
  DataError,
  parseEmbeddings,
  parseSequences,
  parseTexts,
  parseTimes,
} from '../../src/sequences/stages/parse-sequences.ts';

const refused = (work: () => unknown, message: RegExp): void => {
  assert.throws(work, (error: Error) => {
    assert.ok(error instanceof DataError, String(error));
    assert.match(error.message, message);
    return true;
  });
};

test('a line is a user and items; blank lines and runs of spaces do not count', () => {
  const parsed = parseSequences('anna 3 1 2\n\nb  2\t1 \r\n', 'x.txt');
  assert.deepEqual(parsed.users, ['anna', 'b']);
  assert.deepEqual(
    parsed.sequences.map((s) => [...s]),
    [
      [3, 1, 2],
      [2, 1],
    ],
  );
  assert.equal(parsed.numItems, 3);
  assert.equal(parsed.numInteractions, 5);
});

test('bad sequences are refused with file and line', () => {
  refused(() => parseSequences('1 2 3\n2 4 x5\n', 'x.txt'), /x\.txt, line 2, field 3: .*got "x5"/);
  refused(() => parseSequences('1 2 0\n', 'x.txt'), /x\.txt, line 1, field 3: .*got "0"/);
  refused(() => parseSequences('1 2\n\n1 3\n', 'x.txt'), /line 3: user 1 was on line 1 already/);
  refused(() => parseSequences('1 2\n7\n', 'x.txt'), /line 2: expected a user id and then item ids/);
  refused(() => parseSequences(' \n', 'x.txt'), /got an empty file/);
  refused(() => parseSequences('1 2\n2 900000000\n', 'x.txt'), /line 2: item id 900000000 with only 2/);
});

test('times must fit the sequences', () => {
  const parsed = parseSequences('a 1 2\nb 2 1\n', 'x.txt');
  assert.deepEqual([...parseTimes('a 5 6\nb 7 8.5', 't', parsed)[1]!], [7, 8.5]);
  refused(() => parseTimes('a 5 6\nc 7 8', 't', parsed), /t, line 2: expected the times of user b/);
  refused(() => parseTimes('a 5\nb 7 8', 't', parsed), /t, line 1: user a has 2 items but 1 times/);
  refused(() => parseTimes('a 5 x\nb 7 8', 't', parsed), /t, line 1, field 3: .*got "x"/);
  refused(() => parseTimes('a 5 6', 't', parsed), /expected times of 2 users, got 1/);
});

test('texts are strings or titles with attributes', () => {
  const texts = parseTexts(
    '{"1":"cup","3":{"title":"Pan","attributes":["Unknown","Steel"]},"9":"-"}',
    't',
    3,
  );
  assert.deepEqual(texts, ['cup', '', 'Pan, Steel']);
  refused(() => parseTexts('{', 't', 3), /t is not JSON/);
  refused(() => parseTexts('[]', 't', 3), /got a list/);
  refused(() => parseTexts('{"x":"cup"}', 't', 3), /key "x"/);
  refused(() => parseTexts('{"2":7}', 't', 3), /t, item 2: .*got a number/);
});

test('embeddings are a row of floats per item', () => {
  const bytes = new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);
  assert.deepEqual(parseEmbeddings(bytes, 'e', 3), { data: Float32Array.of(1, 2, 3, 4, 5, 6), dim: 2 });
  const inPool = Buffer.concat([Buffer.alloc(8, 255), bytes]).subarray(8);
  assert.deepEqual(parseEmbeddings(inPool, 'e', 3).data, Float32Array.of(1, 2, 3, 4, 5, 6));
  refused(() => parseEmbeddings(bytes, 'e', 4), /24 bytes are no multiple of 16/);
  const bad = new Uint8Array(Float32Array.of(1, 2, 3, Number.NaN).buffer);
  refused(() => parseEmbeddings(bad, 'e', 2), /e, row 2: number 2 is NaN/);
});

test('a folder holds one file of sequences', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'sequences-'));
  t.after(() => rmSync(folder, { recursive: true }));
  refused(() => readFolder(path.join(folder, 'none')), /There is no folder/);
  refused(() => readFolder(folder), /found none/);
  writeFileSync(path.join(folder, 'Shop.txt'), 'a 1 2 3\n');
  writeFileSync(path.join(folder, 'Shop_time.txt'), 'a 1 2 3\n');
  writeFileSync(path.join(folder, 'Shop_item_text.json'), '{"1":"cup"}');
  writeFileSync(
    path.join(folder, 'Shop_cf_embeddings.f32'),
    new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer),
  );
  const set = readFolder(folder);
  assert.equal(set.name, 'shop');
  assert.deepEqual(set.texts, ['cup', '', '']);
  assert.deepEqual(set.embeddings, { data: Float32Array.of(1, 2, 3, 4, 5, 6), dim: 2 });
  assert.equal(set.times?.length, 1);
  writeFileSync(path.join(folder, 'Other.txt'), 'a 1\n');
  refused(() => readFolder(folder), /found Other\.txt, Shop\.txt/);
});
