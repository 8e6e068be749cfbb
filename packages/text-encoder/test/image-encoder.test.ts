import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { EncoderFileError, OnnxImageEncoder, openItemEncoder, PictureError, readPpm } from '../src/index.ts';
import { tinyEncoder } from './tiny-encoder.ts';
import { tinyImageEncoder as files, OPTIONS, picture, ppm, tinyModel } from './tiny-image-encoder.ts';

const near = (got: Float32Array, expected: number[]): void => {
  assert.equal(got.length, expected.length);
  for (const [i, v] of expected.entries())
    assert.ok(Math.abs(got[i]! - v) < 1e-5, `${[...got]} against ${expected}`);
};

describe('OnnxImageEncoder', () => {
  test('scales pictures of any size, normalizes them, and gives one vector each', async (t) => {
    const encoder = await OnnxImageEncoder.load(files());
    t.after(() => encoder.close());
    assert.equal(encoder.dim, 6);
    const { data, numVectors, dim } = await encoder.encode([picture(4, 4), picture(8, 8)]);
    assert.deepEqual([numVectors, dim], [2, 6]);
    near(data.slice(0, 6), [1, 0, 0, 0, 0, 1]);
    near(data.slice(6), [1, 0, 0, 0, 0, 1]);
    const shifted = await OnnxImageEncoder.load(
      files(tinyModel(4), { ...OPTIONS, mean: [0.5, 0, 0], std: [0.5, 1, 2] }),
    );
    t.after(() => shifted.close());
    near((await shifted.encode([picture(4, 2)])).data, [1, -1, 0, 0, 0, 0.5]);
    assert.notEqual(shifted.name, encoder.name, 'the name tells encoders apart');
    assert.equal((await encoder.encode([])).numVectors, 0);
  });

  test('says what is wrong with a model, its options or a picture', async (t) => {
    const refused = (of: Map<string, Uint8Array>, why: RegExp) =>
      assert.rejects(OnnxImageEncoder.load(of), (error: Error) => {
        assert.ok(error instanceof EncoderFileError);
        assert.match(error.message, why);
        return true;
      });
    await refused(new Map([['image.onnx', tinyModel(4)]]), /missing: image-encoder\.json/);
    await refused(files(Buffer.from('no model')), /image\.onnx does not load/);
    await refused(files(tinyModel(8)), /does not take float32 \[1,3,4,4\]/);
    await refused(
      files(tinyModel(4, false)),
      /expected output vector as float32 \[1, dim\], got float32 \[1,6,1\]/,
    );
    await refused(files(tinyModel(4), { ...OPTIONS, size: 0 }), /expected size of at least 1, got 0/);
    await refused(files(tinyModel(4), { ...OPTIONS, std: [1, 0, 1] }), /std above 0/);
    await refused(files(tinyModel(4), { ...OPTIONS, mean: [1, 2] }), /three numbers each/);
    const encoder = await OnnxImageEncoder.load(files());
    t.after(() => encoder.close());
    await assert.rejects(
      encoder.encode([{ width: 2, height: 2, rgb: new Uint8Array(11) }]),
      /A picture of 2 x 2 has 12 bytes, got 11/,
    );
  });
});

describe('pictures of a folder', () => {
  test('a file is read as it was written, and a bad one says what is wrong', () => {
    const of = picture(3, 2);
    const { rgb, ...size } = readPpm(ppm(of));
    assert.deepEqual({ ...size, rgb: Uint8Array.from(rgb) }, of);
    const wrong = (bytes: string, why: RegExp) =>
      assert.throws(
        () => readPpm(Buffer.from(bytes)),
        (error: Error) => error instanceof PictureError && why.test(error.message),
      );
    wrong('GIF89a', /expected a binary PPM/);
    wrong('P6 1 1 65535 abcdef', /expected 8 bits a colour \(255\), got 65535/);
    wrong('P6 2 2 255 abc', /2 x 2 pixels are 12 bytes, got 3/);
  });

  test('stand behind the text of their item; an item without one, or with a bad one, has zeros there', async (t) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'onemall-pictures-'));
    t.after(() => rm(folder, { recursive: true, force: true }));
    for (const [name, bytes] of [...tinyEncoder(), ...files()])
      await writeFile(path.join(folder, name), bytes);
    await writeFile(path.join(folder, 'a%2Fb.ppm'), ppm(picture(8, 8)));
    await writeFile(path.join(folder, 'bad.ppm'), 'no picture');
    const refused: string[] = [];
    const texts = await openItemEncoder(folder);
    const both = await openItemEncoder(folder, {
      picturesFolder: folder,
      onRefused: (itemId, { message }) => refused.push(`${itemId}: ${message}`),
    });
    assert.deepEqual(both.dim, texts.dim + 6);
    assert.ok(both.name.startsWith(`${texts.name}+image-`));
    const items = ['a/b', 'bad', 'none'].map((itemId) => ({
      ...{ itemId, title: `red cup ${itemId}`, category: '', tags: [] },
    }));
    const [of, ofTexts] = [await both.encode(items), await texts.encode(items)];
    for (const row of [0, 1, 2]) {
      const own = of.data.subarray(row * both.dim, (row + 1) * both.dim);
      near(own.slice(0, texts.dim), [...ofTexts.data.subarray(row * texts.dim, (row + 1) * texts.dim)]);
      near(
        own.slice(texts.dim),
        row === 0 ? [1, 0, 0, 0, 0, 1].map((v) => v / Math.SQRT2) : Array(6).fill(0),
      );
    }
    assert.equal(refused.length, 1);
    assert.match(refused[0]!, /^bad: .*bad\.ppm: expected a binary PPM/);
    await assert.rejects(
      openItemEncoder(folder, { picturesFolder: `${folder}/no` }),
      /with pictures of items/,
    );
  });
});
