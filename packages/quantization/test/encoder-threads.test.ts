import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import { EncoderThreads, withEncoderThreads } from '../src/encoder-threads.ts';
import {
  type Codebook,
  CodebookEncoder,
  QuantizationError,
  trainFsq,
  type VectorSource,
  type Vectors,
} from '../src/index.ts';
import { clusters } from './reference.ts';

const DIM = 10;
const random = new SeededRandom(4);
const vectors = clusters(random, { numVectors: 9_000, dim: DIM, numClusters: 200, spread: 0.5 });
const rows = (from: number, to: number): Vectors => ({
  data: vectors.data.slice(from * DIM, to * DIM),
  numVectors: to - from,
  dim: DIM,
});
/** The first level is searched by small integers, the second by floats. */
const codebook: Codebook = {
  ...{ scenario: 's', version: 2, numCodes: [600, 64, 16], dim: DIM, cutoffMs: 0 },
  levels: [
    { kind: 'kmeans', numCodes: 600, centroids: rows(0, 600).data },
    { kind: 'kmeans', numCodes: 64, centroids: rows(600, 664).data.map((v) => v / 8) },
    trainFsq(rows(0, 200), { numCodes: 16, random, epochs: 1 }),
  ],
};
const source = (...sizes: number[]): VectorSource => ({
  dim: DIM,
  *chunks() {
    for (const [i, size] of sizes.entries()) {
      const from = sizes.slice(0, i).reduce((sum, s) => sum + s, 0);
      yield rows(from, from + size);
    }
  },
});

async function opened(t: TestContext, threads = 2): Promise<EncoderThreads> {
  const encoder = await EncoderThreads.open(codebook, threads);
  t.after(() => encoder.close());
  return encoder;
}

describe('EncoderThreads', () => {
  test('gives the codes and errors of one thread, whatever the chunks, also to two callers at once', async (t) => {
    const alone = await CodebookEncoder.open(codebook);
    t.after(() => alone.close());
    const threads = await opened(t);
    for (const given of [vectors, source(2_500, 1, 4_000, 2_499), source(0), source(5)])
      assert.deepEqual(await threads.encodeWithErrors(given), await alone.encodeWithErrors(given));
    const [one, other] = [rows(0, 4_000), rows(3_000, 9_000)];
    assert.deepEqual(
      await Promise.all([threads.encode(one), threads.encode(other)]),
      await Promise.all([alone.encode(one), alone.encode(other)]),
    );
    assert.equal(new Set(await threads.encode(vectors)).size > 100, true);
  });

  test('refuses what it cannot encode, and encodes on', async (t) => {
    const threads = await opened(t);
    const good = await threads.encode(rows(0, 10));
    const bad = rows(0, 3_000);
    bad.data[2_500 * DIM + 3] = Number.NaN;
    await assert.rejects(
      threads.encode(bad),
      (error) => error instanceof QuantizationError && /Vector 2500 holds NaN at place 3/.test(error.message),
    );
    await assert.rejects(
      threads.encode({ data: new Float32Array(4), numVectors: 2, dim: 2 }),
      /takes vectors of 10 numbers, got 2/,
    );
    const broken: VectorSource = {
      dim: DIM,
      *chunks() {
        yield rows(0, 5_000);
        throw new Error('the file ends here');
      },
    };
    await assert.rejects(threads.encode(broken), /the file ends here/);
    assert.deepEqual(await threads.encode(rows(0, 10)), good);
  });

  test('a thread that ends fails what waits for it, and everything after', async (t) => {
    const levels = [{ kind: 'kmeans' as const, numCodes: 1, centroids: new Float32Array(7) }];
    const threads = await EncoderThreads.open({ ...codebook, levels }, 2);
    t.after(() => threads.close());
    await assert.rejects(threads.encode(vectors), /7 numbers are no centroids of 10 each/);
    await assert.rejects(threads.encode(rows(0, 1)), /7 numbers are no centroids of 10 each/);
  });

  test('a projector that is none is refused when it is opened', async () => {
    const projector = { inDim: DIM, outDim: 4, model: Buffer.from('no model'), trainedOn: 'x' };
    await assert.rejects(
      EncoderThreads.open({ ...codebook, projector }, 2),
      (error) => error instanceof QuantizationError && /projector is no ONNX model/.test(error.message),
    );
  });

  test('few vectors are encoded on the thread of the caller', async () => {
    const kind = (numVectors: number, maxThreads: number): Promise<unknown> =>
      withEncoderThreads(codebook, { numVectors, maxThreads }, async (encoder) => encoder.constructor);
    assert.equal(await kind(30_000, 2), CodebookEncoder);
    assert.equal(await kind(3_000_000, 1), CodebookEncoder);
    assert.equal(await kind(33_000, 2), EncoderThreads);
  });
});
