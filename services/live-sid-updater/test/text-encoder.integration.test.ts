/** Items without an embedding get one from their text and picture, by the encoders of a folder, before they get a SID. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { encode, readCodebook } from '@onemall/quantization';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { openItemEncoder } from '@onemall/text-encoder';
import { tinyEncoder, WORDS } from '../../../packages/text-encoder/test/tiny-encoder.ts';
import { picture, ppm, tinyImageEncoder } from '../../../packages/text-encoder/test/tiny-image-encoder.ts';
import { Harness } from './broker-harness.ts';
import { item } from './items.ts';

let stack: TestStack;
before(async () => {
  stack = await startTestStack();
});
after(() => stack.stop());

const words = WORDS.slice(4);
const titleOf = (n: number): string =>
  Array.from({ length: 3 }, (_, i) => words[(n * (i + 1) + i + (n >> 2)) % words.length]).join(' ');

test('cards stand on the encoders of texts and pictures; another encoder is refused', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-encoder-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const [name, bytes] of [...tinyEncoder(), ...tinyImageEncoder()])
    await writeFile(path.join(folder, name), bytes);
  // Half of the cards have a picture, each with another border between red and blue.
  const show = (itemId: string, n: number): Promise<void> =>
    writeFile(path.join(folder, `${itemId}.ppm`), ppm(picture(2 + (n % 7), 4 + (n % 3))));
  for (let n = 0; n < 50; n += 2) await show(`p${n}`, n);
  await writeFile(path.join(folder, 'p1.ppm'), 'no picture');
  await show('fresh', 5);
  const encoder = await openItemEncoder(folder, { picturesFolder: folder });
  const h = await Harness.create(stack, {
    ONEMALL_TEXT_ENCODER_FOLDER: folder,
    ONEMALL_PICTURES_FOLDER: folder,
  });
  t.after(() => h.close());
  const cards = Array.from({ length: 50 }, (_, n) => item(`p${n}`, { title: titleOf(n) }));
  await h.put(...cards);
  const updater = await h.start();
  await h.until('the first SIDs', () => cards.every(({ itemId }) => h.item(itemId) !== null));
  const record = h.codebooks.find(({ key }) => key === 'product_card')!.value!;
  const codebook = readCodebook(await h.artifacts.get(record));
  assert.deepEqual([codebook.textEncoder, codebook.dim], [encoder.name, encoder.dim]);
  assert.match(codebook.textEncoder!, /^onnx-[0-9a-f]+\+image-[0-9a-f]+$/);
  assert.equal((await updater.status()).values.pictures_refused, 1);
  const expectSids = async (items: typeof cards): Promise<void> => {
    const codes = await encode(codebook, await encoder.encode(items));
    for (const [i, { itemId }] of items.entries()) {
      const { c1, c2, c3 } = h.item(itemId)!.sid;
      assert.deepEqual([c1, c2, c3], [...codes.subarray(3 * i, 3 * i + 3)], itemId);
    }
  };
  await expectSids(cards);

  // A card that appears later, and one whose title changes.
  const fresh = item('fresh', { title: 'blue shoe with handle' });
  const renamed = { ...cards[0]!, title: 'shoe shoe shoe', validFromMs: 2_000 };
  await h.put(fresh, renamed);
  await h.until('the new card', () => h.item('fresh') !== null);
  const [before] = [await encode(codebook, await encoder.encode([cards[0]!]))];
  const [now] = [await encode(codebook, await encoder.encode([renamed]))];
  if (before.join() !== now.join()) await h.until('the new title', () => h.item('p0')!.validFromMs === 2_000);
  await expectSids([fresh, renamed]);

  await h.stopServices();
  const without = await h.start({ ONEMALL_PICTURES_FOLDER: '' }).catch((error: Error) => error);
  if (!(without instanceof Error)) await without.exited;
  const said = without instanceof Error ? without.message : without.logTail(40);
  assert.match(
    said,
    /was trained on texts of onnx-[0-9a-f]+\+image-[0-9a-f]+, this process embeds them by onnx-[0-9a-f]+\. /,
  );
});
