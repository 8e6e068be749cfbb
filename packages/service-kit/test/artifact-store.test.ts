import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { ArtifactError, artifactSha256, FolderArtifactStore } from '../src/index.ts';

const files = (content: Record<string, string>): Map<string, Uint8Array> =>
  new Map(Object.entries(content).map(([name, text]) => [name, Buffer.from(text)]));

describe('FolderArtifactStore', () => {
  let root: string;
  let store: FolderArtifactStore;
  beforeEach((t) => {
    root = mkdtempSync(path.join(tmpdir(), 'onemall-test-'));
    store = new FolderArtifactStore(root);
    (t as { after(done: () => void): void }).after(() => rmSync(root, { recursive: true, force: true }));
  });

  test('what is put is got back, byte for byte', async () => {
    const ref = await store.put('policies/ranker/7', files({ 'model.onnx': 'abc', 'manifest.json': '{}' }));
    const back = await store.get(ref);
    assert.deepEqual([...back].map(([name, bytes]) => [name, bytes.toString()]).sort(), [
      ['manifest.json', '{}'],
      ['model.onnx', 'abc'],
    ]);
  });

  test('the same content twice is one artifact; other content under its name is refused', async () => {
    const first = await store.put('a/1', files({ x: '1' }));
    assert.deepEqual(await store.put('a/1', files({ x: '1' })), first);
    await assert.rejects(
      store.put('a/1', files({ x: '2' })),
      (error: unknown) =>
        error instanceof ArtifactError && /exists already with other content/.test(error.message),
    );
    assert.equal((await store.get(first)).get('x')!.toString(), '1');
    assert.deepEqual(readdirSync(path.join(root, 'a')), ['1'], 'no temporary folder is left');
  });

  test('two writers of one artifact at the same moment leave one whole artifact', async () => {
    const puts = await Promise.allSettled(
      ['1', '1', '2'].map((text) => store.put('a/1', files({ x: text, y: text }))),
    );
    const won = puts.filter((p) => p.status === 'fulfilled').map((p) => p.value);
    assert.ok(won.length >= 1);
    const back = await store.get(won[0]!);
    assert.equal(back.get('x')!.toString(), back.get('y')!.toString());
    assert.deepEqual(readdirSync(path.join(root, 'a')), ['1']);
  });

  test('a changed byte, a missing file and an added file are each corruption, told with both sums', async () => {
    const damage: [string, (folder: string) => void][] = [
      ['byte', (folder) => writeFileSync(path.join(folder, 'x'), 'ab!')],
      ['missing', (folder) => rmSync(path.join(folder, 'x'))],
      ['added', (folder) => writeFileSync(path.join(folder, 'z'), '')],
    ];
    for (const [name, harm] of damage) {
      const ref = await store.put(`c/${name}`, files({ x: 'abc', y: 'd' }));
      harm(path.join(root, 'c', name));
      await assert.rejects(
        store.get(ref),
        (error: unknown) =>
          error instanceof ArtifactError &&
          error.message.includes(`c/${name} is corrupt`) &&
          error.message.includes(ref.sha256),
      );
    }
  });

  test('a missing artifact is named with the store it is missing from', async () => {
    await assert.rejects(
      store.get({ uri: 'checkpoints/none', sha256: '0' }),
      (error: unknown) =>
        error instanceof ArtifactError &&
        error.message.includes('checkpoints/none is not in ') &&
        error.message.includes(root),
    );
  });

  test('a writer that died half way leaves nothing that list or get can see', async () => {
    await store.put('p/1', files({ x: '1' }));
    mkdirSync(path.join(root, 'p', '2.00000000-dead.tmp'), { recursive: true });
    writeFileSync(path.join(root, 'p', '2.00000000-dead.tmp', 'x'), 'half');
    assert.deepEqual(await store.list('p'), ['p/1']);
    await store.put('p/2', files({ x: 'whole' }));
    assert.deepEqual(await store.list('p'), ['p/1', 'p/2']);
  });

  test('list of a folder that is not there is empty, and remove of nothing is no error', async () => {
    assert.deepEqual(await store.list('nothing'), []);
    await store.remove('nothing/1');
  });

  test('neither uris nor file names leave the store', async () => {
    await assert.rejects(store.put('../outside', files({ x: '1' })), /leaves the store/);
    await assert.rejects(store.put('a/2', files({ '../x': '1' })), /hold no folders/);
    await assert.rejects(store.remove('../../etc'), /leaves the store/);
  });
});

test('the sum does not depend on the order of the files, and on nothing but names and bytes', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.stringMatching(/^[a-z]{1,6}$/), fc.uint8Array({ maxLength: 20 })),
      (content) => {
        const entries = Object.entries(content);
        assert.equal(artifactSha256(new Map(entries)), artifactSha256(new Map([...entries].reverse())));
      },
    ),
    { seed: 1 },
  );
  // Names and bytes are kept apart: moving a byte from one to the other changes the sum.
  assert.notEqual(artifactSha256(files({ ab: 'c' })), artifactSha256(files({ a: 'bc' })));
});
