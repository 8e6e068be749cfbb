import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  brokenLimits,
  CodebookFileError,
  codesForCatalogue,
  codesPerLevel,
  decodeFsq,
  encode,
  encodeFsq,
  type FsqLevel,
  measureCodebook,
  measureSids,
  namedMetrics,
  QuantizationError,
  readCodebook,
  stackVectors,
  type TrainingState,
  trainCodebook,
  trainFsq,
  withEncoder,
  writeCodebook,
} from '../src/index.ts';
import { clusters, slowConflict, slowNearest } from './reference.ts';

const vectors = clusters(new SeededRandom(1), { numVectors: 800, dim: 16, numClusters: 20, spread: 0.4 });
const trained = (lastLevel: 'kmeans' | 'fsq', seed = 1) =>
  trainCodebook(vectors, {
    scenario: 'product_card',
    version: 3,
    numCodes: [16, 16, 64],
    lastLevel,
    cutoffMs: 1_000,
    seed,
  });
const kept = { kmeans: await trained('kmeans'), fsq: await trained('fsq') };

for (const lastLevel of ['kmeans', 'fsq'] as const)
  describe(`a codebook with ${lastLevel} as last level`, () => {
    const codebook = kept[lastLevel];

    test('the same seed gives the same codebook', async () => {
      assert.deepEqual(await trained(lastLevel), codebook);
      assert.notDeepEqual(await trained(lastLevel, 2), codebook);
    });

    test('each level leaves less over, and codes stay in range', async () => {
      const { codes, relativeErrors } = await withEncoder(codebook, (encoder) =>
        encoder.encodeWithErrors(vectors),
      );
      const [first, second, third] = relativeErrors;
      assert.ok(first! < 1 && second! < first! && third! < second!, String(relativeErrors));
      for (const [i, code] of codes.entries()) assert.ok(code >= 0 && code < codebook.numCodes[i % 3]!);
    });

    test('a vector has the same codes alone and among others', async () => {
      const all = await encode(codebook, vectors);
      for (const i of [0, 17, 799]) {
        const alone = stackVectors([vectors.data.subarray(i * 16, (i + 1) * 16)]);
        assert.deepEqual(await encode(codebook, alone), all.slice(i * 3, i * 3 + 3));
      }
    });

    test('its files give it back, and their bytes depend on it alone', async () => {
      const files = writeCodebook(codebook);
      const read = readCodebook(files);
      assert.deepEqual(read, codebook);
      assert.deepEqual(await encode(read, vectors), await encode(codebook, vectors));
      assert.deepEqual(writeCodebook(read), files);
    });

    test('refuses vectors of another length, and numbers that are none', async () => {
      await assert.rejects(encode(codebook, stackVectors([[1, 2]])), /takes vectors of 16 numbers, got 2/);
      const bad = stackVectors([Array.from({ length: 16 }, (_, d) => (d === 4 ? Number.NaN : 0))]);
      await assert.rejects(
        encode(codebook, bad),
        (error) => error instanceof QuantizationError && /holds NaN at place 4/.test(error.message),
      );
    });
  });

for (const lastLevel of ['kmeans', 'fsq'] as const)
  test(`with ${lastLevel} last, codes and errors are those of the levels one by one`, async () => {
    const codebook = kept[lastLevel];
    const { codes, relativeErrors } = await withEncoder(codebook, (encoder) =>
      encoder.encodeWithErrors(vectors),
    );
    const residual = { ...vectors, data: vectors.data.slice() };
    const squares = () => residual.data.reduce((sum, v) => sum + v * v, 0);
    const whole = squares();
    for (const [l, level] of codebook.levels.entries()) {
      const expected =
        level.kind === 'kmeans'
          ? slowNearest(residual, level.centroids).map(({ code }) => code)
          : [...encodeFsq(level, residual)];
      for (const [i, code] of expected.entries()) assert.equal(codes[i * 3 + l], code);
      const restored =
        level.kind === 'kmeans'
          ? Float32Array.from(expected.flatMap((k) => [...level.centroids.subarray(k * 16, k * 16 + 16)]))
          : decodeFsq(level, Int32Array.from(expected), 16);
      for (const [at, v] of restored.entries()) residual.data[at]! -= v;
      assert.ok(Math.abs(squares() / whole - relativeErrors[l]!) < 1e-5);
    }
  });

test('a training that goes on from any of its states ends with the same codebook', async () => {
  const options = {
    scenario: 's',
    version: 1,
    numCodes: [16, 16, 16] as const,
    lastLevel: 'fsq' as const,
    cutoffMs: 1,
    seed: 5,
    tolerance: 1e-2,
    fsq: { epochs: 1 },
  };
  const states: TrainingState[] = [];
  const whole = await trainCodebook(vectors, { ...options, onState: (state) => void states.push(state) });
  assert.ok(states.length > 5);
  for (const resume of states) assert.deepEqual(await trainCodebook(vectors, { ...options, resume }), whole);
});

test('FSQ separates residuals that k-means with as many codes throws together', async () => {
  const [fsq, kmeans] = await Promise.all(
    [kept.fsq, kept.kmeans].map((codebook) => withEncoder(codebook, (e) => measureCodebook(e, vectors))),
  );
  assert.ok(fsq!.conflict < kmeans!.conflict, `${fsq!.conflict} against ${kmeans!.conflict}`);
});

test('FSQ restores a code from its bits', () => {
  const level: FsqLevel = trainFsq(vectors, { numCodes: 8, random: new SeededRandom(1) });
  const all = decodeFsq(level, Int32Array.from([0, 1, 2, 3, 4, 5, 6, 7]), 16);
  const rows = new Set(Array.from({ length: 8 }, (_, i) => all.slice(i * 16, (i + 1) * 16).join()));
  assert.equal(rows.size, 8);
  assert.throws(() => trainFsq(vectors, { numCodes: 12, random: new SeededRandom(1) }), /power of two/);
});

describe('files of a codebook', () => {
  const files = () => new Map(writeCodebook(kept.fsq));
  const withHeader = (change: Record<string, unknown>) => {
    const changed = files();
    const header = JSON.parse(Buffer.from(changed.get('codebook.json')!).toString('utf8')) as object;
    return changed.set('codebook.json', Buffer.from(JSON.stringify({ ...header, ...change })));
  };
  const without = (name: string) => {
    const rest = files();
    rest.delete(name);
    return rest;
  };
  const cases: [string, Map<string, Uint8Array>, RegExp][] = [
    ['no header', without('codebook.json'), /has a file codebook\.json; this artifact has level1/],
    ['no level', without('level2.bin'), /names level2\.bin, which the artifact does not have/],
    ['a header that is not JSON', files().set('codebook.json', Buffer.from('{')), /not JSON/],
    ['a level cut off', files().set('level1.bin', new Uint8Array(8)), /expected 1024 bytes.*got 8/],
    ['NaN', files().set('level1.bin', new Uint8Array(1024).fill(255)), /number 0 is NaN/],
    ['another format', withHeader({ format: 'x' }), /expected format "onemall-codebook", got "x"/],
    ['a newer format', withHeader({ formatVersion: 2 }), /formatVersion 1/],
    ['no version', withHeader({ version: 0 }), /version to be a whole number/],
    ['no levels', withHeader({ levels: [] }), /3 levels, got 0/],
    ['a wrong dim', withHeader({ dim: 15 }), /level1\.bin: expected 960 bytes/],
  ];
  for (const [what, broken, message] of cases)
    test(`with ${what} are refused`, () => {
      assert.throws(
        () => readCodebook(broken),
        (error) => error instanceof CodebookFileError && message.test(error.message),
      );
    });
});

describe('metrics', () => {
  test('conflict and exclusive are those of a plain count', () => {
    const code = fc.integer({ min: 0, max: 3 });
    fc.assert(
      fc.property(fc.array(fc.tuple(code, code, code), { minLength: 1, maxLength: 60 }), (sids) => {
        const codes = Int32Array.from(sids.flat());
        const { conflict, exclusive } = measureSids(codes, [4, 4, 4]);
        assert.deepEqual({ conflict, exclusive }, slowConflict(codes));
      }),
      { seed: 13 },
    );
  });

  test('usage and entropy of known codes', () => {
    const metrics = measureSids(Int32Array.from([0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 1]), [4, 4, 2]);
    assert.deepEqual(metrics.usage, [1, 0.25, 1]);
    assert.equal(metrics.entropyBits[0], 2);
    assert.equal(metrics.entropyBits[1], 0);
    assert.deepEqual(Object.keys(namedMetrics(metrics)), [
      'numItems',
      'conflict',
      'exclusive',
      'usage1',
      'usage2',
      'usage3',
      'entropyBits1',
      'entropyBits2',
      'entropyBits3',
    ]);
  });

  test('limits name what is broken, and equal vectors are nobody else’s fault', () => {
    const limits = { maxExcessConflict: 0.2, minUsage: 0.5, maxRelativeError: 0.9 };
    const base = {
      numItems: 10,
      exclusive: 0,
      usage: [1, 1, 1],
      entropyBits: [1, 1, 1],
      relativeErrors: [0.5, 0.4, 0.3],
    };
    assert.deepEqual(brokenLimits({ ...base, conflict: 0.8, duplicateShare: 0.7 }, limits), []);
    const broken = brokenLimits(
      { ...base, conflict: 0.8, duplicateShare: 0.1, usage: [0.2, 1, 1], relativeErrors: [1, 1, 1] },
      limits,
    );
    assert.equal(broken.length, 3);
    assert.match(broken[0]!, /conflict is 0\.800, of which equal vectors explain 0\.100/);
  });

  test('equal vectors are counted', async () => {
    const twice = stackVectors([
      [1, 2],
      [3, 4],
      [1, 2],
      [5, 6],
    ]);
    const codebook = await trainCodebook(twice, {
      scenario: 's',
      version: 1,
      numCodes: [2, 2, 2],
      lastLevel: 'kmeans',
      cutoffMs: 0,
      seed: 1,
    });
    const metrics = await withEncoder(codebook, (encoder) => measureCodebook(encoder, twice));
    assert.equal(metrics.duplicateShare, 0.5);
  });
});

test('codes per level: the largest power of two of at most N / 40, from 16 to 4096', () => {
  const cases = [
    [1, 16],
    [640, 16],
    [1_279, 16],
    [1_280, 32],
    [4_000, 64],
    [163_839, 2_048],
    [163_840, 4_096],
    [1e8, 4_096],
  ] as const;
  for (const [items, codes] of cases) assert.equal(codesPerLevel(items), codes, `${items} items`);
  assert.deepEqual(codesForCatalogue(4_000, 'kmeans'), [64, 64, 64]);
  assert.deepEqual(codesForCatalogue(4_000, 'fsq'), [64, 64, 128]);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200_000 }), (items) => {
      const [k1, k2, k3] = codesForCatalogue(items, 'fsq');
      assert.ok(k1 * k2 * k3 >= 100 * items || k3 === 4096);
    }),
    { seed: 14 },
  );
});
