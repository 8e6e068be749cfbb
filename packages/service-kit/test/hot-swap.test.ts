import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import pino from 'pino';
import {
  artifactSha256,
  FolderArtifactStore,
  HotSwap,
  isHeldBack,
  ModelFollower,
  StageMeter,
} from '../src/index.ts';

const folder = await mkdtemp(path.join(tmpdir(), 'onemall-hot-swap-'));
after(() => rm(folder, { recursive: true, force: true }));

test('an old model closes when its last lease ends, not before', async () => {
  const closed: string[] = [];
  const swap = new HotSwap<string>(
    async (model) => void closed.push(model),
    (error) => assert.fail(String(error)),
  );
  assert.equal(swap.acquire(), undefined);
  swap.swap('old');
  const first = swap.acquire()!;
  const second = swap.acquire()!;
  swap.swap('new');
  assert.equal(swap.current, 'new');
  first.release();
  assert.deepEqual(closed, []);
  assert.equal(second.model, 'old');
  second.release();
  assert.deepEqual(closed, ['old']);
  assert.throws(() => second.release(), /released twice/);
  await swap.close();
  assert.deepEqual(closed, ['old', 'new']);
});

test('a model that fails to close does not stop the next one', async () => {
  const errors: unknown[] = [];
  const swap = new HotSwap<string>(
    () => Promise.reject(new Error('stuck')),
    (error) => void errors.push(error),
  );
  swap.swap('old');
  swap.swap('new');
  await swap.close();
  assert.equal(errors.length, 2);
});

test('ModelFollower refuses a corrupt artifact, keeps the old model and takes the next good one', async () => {
  const artifacts = new FolderArtifactStore(folder);
  const meter = new StageMeter('follower-test');
  const closed: string[] = [];
  const follower = new ModelFollower({
    artifacts,
    meter,
    log: pino({ level: 'silent' }),
    load: async (_publication, files) => files.get('model.txt')!.toString(),
    close: async (model) => void closed.push(model),
  });
  const publish = async (policyVersion: string, step: number) => {
    const ref = await artifacts.put(
      `policies/${policyVersion}`,
      new Map([['model.txt', Buffer.from(policyVersion)]]),
    );
    return { policyVersion, step, ...ref };
  };
  follower.offer(await publish('one', 1));
  await follower.firstLoaded;
  assert.equal(follower.current, 'one');

  const corrupt = await publish('two', 2);
  await writeFile(path.join(folder, corrupt.uri, 'model.txt'), 'tampered');
  follower.offer(corrupt);
  await follower.settled();
  assert.equal(follower.current, 'one');
  assert.equal(meter.status('running').values.models_refused, 1);

  follower.offer({ policyVersion: 'lost', step: 3, uri: 'policies/lost', sha256: '0' });
  await follower.settled();
  assert.equal(meter.status('running').values.models_refused, 2);

  const four = await publish('four', 4);
  follower.offer(four);
  follower.offer(four);
  await follower.settled();
  follower.offer(four);
  await follower.settled();
  assert.equal(follower.current, 'four');
  assert.equal(meter.status('running').values.models_loaded, 2);
  assert.deepEqual(closed, ['one']);
  await follower.close();
  assert.deepEqual(closed, ['one', 'four']);
});

test('isHeldBack holds back about the asked share, the same requests each time', () => {
  const ids = Array.from({ length: 20_000 }, (_, i) => `request-${i}`);
  const held = ids.filter((id) => isHeldBack(id, 0.05));
  assert.ok(Math.abs(held.length / ids.length - 0.05) < 0.006, `${held.length}`);
  assert.deepEqual(
    ids.filter((id) => isHeldBack(id, 0.05)),
    held,
  );
  assert.equal(ids.filter((id) => isHeldBack(id, 0)).length, 0);
});

test('ModelFollower tries again when the store failed, not the model', async () => {
  const store = new FolderArtifactStore(folder);
  const files = new Map([['model.txt', Buffer.from('late')]]);
  const ref = { uri: 'policies/late', sha256: artifactSha256(files) };
  const follower = new ModelFollower({
    artifacts: store,
    meter: new StageMeter('follower-retry-test'),
    log: pino({ level: 'silent' }),
    retryMs: 1,
    load: async (_publication, loaded) => loaded.get('model.txt')!.toString(),
    close: async () => {},
  });
  follower.offer({ policyVersion: 'late', step: 1, ...ref });
  await follower.settled();
  assert.equal(follower.current, undefined);
  await store.put(ref.uri, files);
  const keepAlive = setInterval(() => {}, 1_000);
  await follower.firstLoaded;
  clearInterval(keepAlive);
  assert.equal(follower.current, 'late');
  await follower.close();
});
