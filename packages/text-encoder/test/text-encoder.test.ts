import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { project, trainProjector } from '@onemall/learning/projector';
import { stackVectors, type Vectors } from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';
import {
  CachedTextEncoder,
  EncoderFileError,
  NgramEncoder,
  OnnxTextEncoder,
  pairRecall,
  type TextEncoder,
} from '../src/index.ts';
import { DIM, rowOf, tinyEncoder, WORDS } from './tiny-encoder.ts';

const idOf = (word: string): number => Math.max(1, WORDS.indexOf(word));
/** Hidden states of the tiny encoder, by hand. */
const hidden = (ids: number[]): number[][] => {
  const mean = Array.from(
    { length: DIM },
    (_, d) => ids.reduce((sum, id) => sum + rowOf(id)[d]!, 0) / ids.length,
  );
  return ids.map((id) => rowOf(id).map((v, d) => v + mean[d]!));
};
const near = (got: ArrayLike<number>, expected: readonly number[]): void => {
  assert.equal(got.length, expected.length);
  for (const [d, v] of expected.entries())
    assert.ok(Math.abs(got[d]! - v) < 1e-5, `${[...Array.from(got)]} against ${expected}`);
};
const row = ({ data, dim }: Vectors, i: number) => data.slice(i * dim, (i + 1) * dim);

describe('OnnxTextEncoder', () => {
  const texts = ['Red cup', 'blue SHOE with handle', 'cup', 'unheard', 'red cup with handle red cup red cup'];
  const ids = texts.map((text) => [2, ...text.toLowerCase().split(' ').map(idOf)].slice(0, 6));

  test('pools the hidden states of each text, whatever is beside it in the batch', async () => {
    const encoder = await OnnxTextEncoder.load(tinyEncoder());
    assert.equal(encoder.dim, DIM);
    const all = await encoder.encode(texts);
    for (const [i, list] of ids.entries()) {
      const states = hidden(list);
      const mean = states[0]!.map(
        (_, d) => states.reduce((sum, state) => sum + state[d]!, 0) / states.length,
      );
      near(row(all, i), mean);
      near(row(await encoder.encode([texts[i]!]), 0), mean);
    }
    await encoder.close();
  });

  test('takes the first token, or a special one put at the end', async () => {
    const first = await OnnxTextEncoder.load(tinyEncoder({ maxTokens: 6, pooling: 'first' }));
    near(row(await first.encode(texts), 1), hidden(ids[1]!)[0]!);
    const files = tinyEncoder({ maxTokens: 4, pooling: 'special', specialToken: '[EMB]' });
    const special = await OnnxTextEncoder.load(files);
    near(row(await special.encode(texts), 1), hidden([...ids[1]!.slice(0, 3), 3]).at(-1)!);
    near(row(await special.encode(texts), 2), hidden([...ids[2]!, 3]).at(-1)!);
    assert.notEqual(first.name, special.name);
    await first.close();
    await special.close();
  });

  const without = (name: string) => {
    const files = tinyEncoder();
    files.delete(name);
    return files;
  };
  const cases: [string, Map<string, Uint8Array>, RegExp][] = [
    ['without a tokenizer', without('tokenizer.json'), /tokenizer\.json is not there/],
    [
      'with another pooling',
      tinyEncoder({ maxTokens: 4, pooling: 'max' }),
      /mean, first or special, got max/,
    ],
    ['without a length', tinyEncoder({ pooling: 'mean' }), /maxTokens of at least 1, got undefined/],
    [
      'with an unknown token',
      tinyEncoder({ maxTokens: 4, pooling: 'special', specialToken: '[X]' }),
      /no token \[X\]/,
    ],
    ['with a damaged model', tinyEncoder().set('model.onnx', Buffer.from('no')), /model\.onnx does not load/],
    [
      'with a header that is not JSON',
      tinyEncoder().set('encoder.json', Buffer.from('{')),
      /encoder\.json is not JSON/,
    ],
  ];
  for (const [what, files, message] of cases)
    test(`files ${what} are refused`, async () => {
      await assert.rejects(
        OnnxTextEncoder.load(files),
        (error) => error instanceof EncoderFileError && message.test(error.message),
      );
    });
});

test('CachedTextEncoder asks for each text once, and forgets the one unused longest', async () => {
  const asked: string[][] = [];
  const bare = new NgramEncoder(16);
  const counting: TextEncoder = {
    name: 'counting',
    dim: 16,
    encode: (texts) => {
      asked.push([...texts]);
      return bare.encode(texts);
    },
    close: () => bare.close(),
  };
  const cached = new CachedTextEncoder(counting, 2);
  const first = await cached.encode(['a cup', 'a shoe', 'a cup']);
  assert.deepEqual(asked, [['a cup', 'a shoe']]);
  assert.deepEqual(first, await bare.encode(['a cup', 'a shoe', 'a cup']));
  assert.deepEqual(await cached.encode(['a cup']), await bare.encode(['a cup']));
  await cached.encode(['a hat']);
  await cached.encode(['a cup', 'a shoe']);
  assert.deepEqual(asked, [['a cup', 'a shoe'], [], ['a hat'], ['a shoe']]);
  assert.deepEqual([cached.hits, cached.misses], [3, 4]);
});

describe('pairRecall', () => {
  test('is that of a plain search; equals stand in the middle', async () => {
    const angles = [0, 10, 25, 180, 180, 180];
    const vectors = stackVectors(
      angles.map((degrees) => [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)]),
    );
    const recall = (a: number, b: number, k: number) =>
      pairRecall(vectors, Int32Array.of(a, b), [k]).then((byK) => byK[k]);
    assert.equal(await recall(0, 1, 1), 1);
    assert.equal(await recall(0, 2, 1), 0);
    assert.equal(await recall(0, 2, 2), 1);
    assert.equal(await recall(0, 3, 3), 0);
    assert.equal(await recall(0, 3, 4), 1);
    assert.deepEqual(await pairRecall(vectors, Int32Array.of(0, 1, 0, 2), [1, 2]), { 1: 0.5, 2: 1 });
  });
});

test('a projector trained on pairs finds partners that the texts alone do not, and seeds reproduce', async () => {
  // Items 2i and 2i + 1 belong together; what tells so is drowned in louder coordinates.
  const random = new SeededRandom(1);
  const numPairs = 900;
  const rows = Array.from({ length: numPairs }, () => {
    const shared = Array.from({ length: 6 }, () => random.normal());
    return [0, 1].map(() => [
      ...shared.map((v) => v + 0.1 * random.normal()),
      ...Array.from({ length: 10 }, () => 3 * random.normal()),
    ]);
  }).flat();
  const vectors = stackVectors(rows);
  const pair = (i: number) => [2 * i, 2 * i + 1];
  const indices = Array.from({ length: numPairs }, (_, i) => i);
  const train = Int32Array.from(indices.slice(0, 800).flatMap(pair));
  const heldOut = Int32Array.from(indices.slice(800).flatMap(pair));
  const options = { hidden: 16, outDim: 8, batchSize: 64, steps: 150, learningRate: 1e-2, seed: 3 };
  const losses: number[] = [];
  const trained = await trainProjector(vectors, train, {
    ...options,
    random: new SeededRandom(2),
    onStep: (_, { loss }) => losses.push(loss),
  });
  assert.ok(losses.at(-1)! < 0.7 * losses[0]!, `${losses[0]} to ${losses.at(-1)}`);
  const before = (await pairRecall(vectors, heldOut, [10]))[10]!;
  const after = (await pairRecall(await project(trained, vectors), heldOut, [10]))[10]!;
  assert.ok(after > before + 0.2, `recall@10 ${before} to ${after}`);
  const again = await trainProjector(vectors, train, { ...options, random: new SeededRandom(2) });
  assert.deepEqual(again.model, trained.model);
  await assert.rejects(project(trained, stackVectors([[1, 2]])), /takes vectors of 16 numbers, got 2/);
  await assert.rejects(trainProjector(vectors, new Int32Array(0), { ...options, random }), /got none/);
});
