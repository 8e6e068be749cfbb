import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GraphBuilder } from '@onemall/learning/onnx';
import { EncoderFileError, type ImageEncoderOptions, OnnxImageEncoder, type Picture } from '../src/index.ts';

const OPTIONS: ImageEncoderOptions = { size: 4, mean: [0, 0, 0], std: [1, 1, 1] };
const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));

/** Mean of each channel, of the left half and of the right: float32 [1, 6]; with `flat` false [1, 6, 1]. */
function tinyModel(size: number, flat = true): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const x = g.input('pixels', [1, 3, size, size], 'float32');
  const halves = g.reshape(x, [1, 3, size, 2, size / 2]);
  const rows = g.reduce('ReduceMean', halves, [4], false);
  const means = g.reduce('ReduceMean', rows, [2], false);
  g.output('vector', g.reshape(means, flat ? [1, 6] : [1, 6, 1]));
  return g.encode();
}
const files = (model = tinyModel(4), options: object = OPTIONS) =>
  new Map([
    ['image.onnx', model],
    ['image-encoder.json', json(options)],
  ]);
/** Left half red, right half blue. */
const picture = (width: number, height: number): Picture => ({
  width,
  height,
  rgb: Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const left = Math.floor(i / 3) % width < width / 2;
    return i % 3 === (left ? 0 : 2) ? 255 : 0;
  }),
});
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
