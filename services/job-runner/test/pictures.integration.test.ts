/** Items with pictures: what the jobs train and check stands on them, as what the live-sid-updater serves does. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { type ItemSid, TOPICS } from '@onemall/contracts';
import { measureCodebook, NUM_LEVELS, readCodebook, withEncoder } from '@onemall/quantization';
import { spawnService, startTestStack, waitFor } from '@onemall/testkit';
import { openItemEncoder, type Picture } from '@onemall/text-encoder';
import { tinyEncoder } from '../../../packages/text-encoder/test/tiny-encoder.ts';
import { ppm, tinyImageEncoder } from '../../../packages/text-encoder/test/tiny-image-encoder.ts';
import { readTable } from '../src/adapters/read-table.ts';
import { runningJobs } from './running-jobs.ts';
import { item } from './samples.ts';

const stack = await startTestStack({ redis: true });
after(() => stack.stop());
const skip =
  stack.redisUrl === null &&
  'jobs need Redis, and there is no redis-server here: apt-get install redis-server';

const NUM_ITEMS = 60;
/** Each fourth item has no picture, and the file of one is none. */
const withoutPicture = (n: number): boolean => n % 4 === 3 || n === 0;
/** Two halves of one colour each. */
const picture = (n: number): Picture => ({
  width: 8,
  height: 4,
  rgb: Uint8Array.from({ length: 8 * 4 * 3 }, (_, i) => {
    const right = Math.floor(i / 3) % 8 >= 4 ? 1 : 0;
    return (n * (31 + 2 * (i % 3) + 20 * right) + 90 * (i % 3)) % 256;
  }),
});

test('a codebook is trained on texts and pictures, names both encoders, and gives the SIDs that are served', {
  skip,
}, async (t) => {
  const encoders = await mkdtemp(path.join(tmpdir(), 'onemall-encoders-'));
  t.after(() => rm(encoders, { recursive: true, force: true }));
  for (const [name, bytes] of [...tinyEncoder(), ...tinyImageEncoder()])
    await writeFile(path.join(encoders, name), bytes);
  // All have one text: nothing but pictures tells them apart.
  const items = Array.from({ length: NUM_ITEMS }, (_, n) => ({ ...item(`p${n}`), title: 'red cup' }));
  for (const [n, { itemId }] of items.entries())
    if (!withoutPicture(n)) await writeFile(path.join(encoders, `${itemId}.ppm`), ppm(picture(n)));
  await writeFile(path.join(encoders, 'p0.ppm'), 'no picture');
  const encoder = await openItemEncoder(encoders, { picturesFolder: encoders });
  const vectors = await encoder.encode(items);

  const topics = TOPICS.map(({ name }) => name);
  const { kafka, writer, enqueue, artifacts, service, env } = await runningJobs(stack, t, topics, {
    ONEMALL_TEXT_ENCODER_FOLDER: encoders,
    ONEMALL_PICTURES_FOLDER: encoders,
    // Windows that fit the topics, of which the updater makes sure.
    ONEMALL_SCENARIOS: JSON.stringify({ product_card: { clickWindowMs: 4_000, buyWindowMs: 8_000 } }),
    ONEMALL_GRACE_MS: '1000',
  });
  await writer.send(items.map((value) => ({ topic: 'items', key: value.itemId, value })));
  const trained = await enqueue('train-codebooks');
  assert.equal(trained.code, 0, trained.stderr + service.logTail());
  assert.match(trained.stdout, /"refusedItems": 0/);
  const record = (await readTable(kafka, 'codebooks')).get('product_card')!;
  const codebook = readCodebook(await artifacts.get(record));
  assert.match(codebook.textEncoder!, /^onnx-[0-9a-f]+\+image-[0-9a-f]+$/);
  assert.deepEqual([codebook.textEncoder, codebook.dim], [encoder.name, encoder.dim]);
  const [metrics, codes] = await withEncoder(
    codebook,
    async (of) => [await measureCodebook(of, vectors), await of.encode(vectors)] as const,
  );
  const numWithout = items.filter((_, n) => withoutPicture(n)).length;
  assert.equal(metrics.duplicateShare, numWithout / NUM_ITEMS, 'pictures tell items apart');
  assert.equal(record.metrics.duplicateShare, metrics.duplicateShare);
  assert.equal(record.metrics.conflict, metrics.conflict);
  assert.ok(Math.abs(record.metrics.relativeError3! - metrics.relativeErrors[2]!) < 1e-9);
  const sidOf = (n: number): string => codes.subarray(n * NUM_LEVELS, (n + 1) * NUM_LEVELS).join();
  const all = items.map((_, n) => sidOf(n));
  assert.equal(new Set(all.filter((_, n) => withoutPicture(n))).size, 1);
  assert.ok(new Set(all).size > NUM_ITEMS / 3, 'and SIDs show it');

  // What is served, and what the job that checks it expects, are the same.
  const updater = await spawnService('live-sid-updater', env);
  t.after(() => updater.kill());
  const served = async (): Promise<ReadonlyMap<string, ItemSid>> => readTable(kafka, 'item-sids');
  await waitFor(async () => (await served()).size === NUM_ITEMS, {
    ...{ what: 'all SIDs', timeoutMs: 120_000, intervalMs: 200 },
  }).catch((error: Error) => {
    throw new Error(`${error.message}\n${updater.logTail(20)}`, { cause: error });
  });
  for (const [key, { sid }] of await served())
    assert.equal([sid.c1, sid.c2, sid.c3].join(), sidOf(Number(key.slice(1, -2))), key);
  const checked = await enqueue('retokenize-catalogue');
  assert.equal(checked.code, 0, checked.stderr + service.logTail());
  assert.match(checked.stdout, /"items": 60,\s+"wrongBefore": 0/);
});
