import assert from 'node:assert/strict';
import { test } from 'node:test';
import { trainProjector } from '@onemall/learning/projector';
import { SeededRandom } from '@onemall/service-kit';
import {
  CodebookFileError,
  canMatch,
  encode,
  levelDim,
  matchedCodes,
  type Projector,
  ProjectorRunner,
  QuantizationError,
  readCodebook,
  trainCodebook,
  type Vectors,
  withEncoder,
  writeCodebook,
} from '../src/index.ts';
import { trainInThread } from '../src/training-thread.ts';
import { clusters } from './reference.ts';

const vectors = clusters(new SeededRandom(1), { numVectors: 300, dim: 12, numClusters: 20, spread: 0.4 });
const pairs = Int32Array.from({ length: 400 }, (_, i) => (i * 7) % 300);

async function trainedProjector(seed: number): Promise<Projector> {
  const { shape, model } = await trainProjector(vectors, pairs, {
    ...{ seed, random: new SeededRandom(seed), steps: 3, hidden: 8, outDim: 5, batchSize: 16 },
  });
  return { inDim: shape.inDim, outDim: shape.outDim, trainedOn: `pairs/${seed}`, model };
}
const [projector, other] = [await trainedProjector(1), await trainedProjector(2)];
const options = {
  ...{ scenario: 'product_card', version: 1, numCodes: [16, 16, 16] as const },
  ...{ lastLevel: 'fsq' as const, cutoffMs: 1, seed: 3 },
};
const codebook = await trainCodebook(vectors, { ...options, projector });

async function projected(rows: Vectors): Promise<Vectors> {
  const runner = await ProjectorRunner.open(projector);
  return runner.project(rows).finally(() => runner.close());
}

test('a codebook with a projector quantizes the projected vector, wherever it is encoded', async () => {
  assert.deepEqual([codebook.dim, levelDim(codebook)], [12, 5]);
  const inFront = await projected(vectors);
  const { projector: _, ...levels } = codebook;
  const byHand = await encode({ ...levels, dim: 5 }, inFront);
  assert.deepEqual(await encode(codebook, vectors), byHand);
  // One vector alone, from an artifact.
  const read = readCodebook(writeCodebook(codebook));
  assert.deepEqual(read, codebook);
  const alone = await encode(read, { data: vectors.data.slice(12, 24), numVectors: 1, dim: 12 });
  assert.deepEqual(alone, byHand.slice(3, 6));
  const { relativeErrors } = await withEncoder(codebook, (e) => e.encodeWithErrors(vectors));
  assert.ok(relativeErrors[0]! < 1 && relativeErrors[1]! < relativeErrors[0]!);
  // Vectors that are read in parts give the same codebook.
  const source = { dim: 12, chunks: () => [vectors] };
  assert.equal((await trainCodebook(source, { ...options, projector })).dim, 12);
});

test('the manifest says which projector, and says so where there is none', async () => {
  const manifest = (files: Map<string, Uint8Array>) =>
    JSON.parse(Buffer.from(files.get('codebook.json')!).toString()) as { projector: unknown };
  assert.deepEqual(manifest(writeCodebook(codebook)).projector, {
    ...{ file: 'projector.onnx', inDim: 12, outDim: 5, trainedOn: 'pairs/1' },
  });
  const plain = await trainCodebook(vectors, options);
  assert.equal(manifest(writeCodebook(plain)).projector, null);
  assert.equal(readCodebook(writeCodebook(plain)).projector, undefined);
});

test('a projector of another length is refused, and the error says which', async () => {
  const broken = (change: (header: { projector: Record<string, unknown> }) => void) => {
    const files = writeCodebook(codebook);
    const header = JSON.parse(Buffer.from(files.get('codebook.json')!).toString());
    change(header);
    return new Map([...files, ['codebook.json', Buffer.from(JSON.stringify(header))]]);
  };
  assert.throws(
    () => readCodebook(broken(({ projector: p }) => Object.assign(p, { inDim: 11 }))),
    (e) =>
      e instanceof CodebookFileError && /expected projector.inDim to be .* dim, 12, got 11/.test(e.message),
  );
  assert.throws(
    () => readCodebook(broken(({ projector: p }) => Object.assign(p, { outDim: 6 }))),
    /level1.bin: expected 384 bytes/,
  );
  assert.throws(
    () => readCodebook(broken(({ projector: p }) => Object.assign(p, { file: 'gone.onnx' }))),
    /names gone.onnx, which the artifact does not have/,
  );
  // Lengths that fit each other and not the network.
  await assert.rejects(
    encode({ ...codebook, dim: 11, projector: { ...projector, inDim: 11 } }, vectors),
    (e) =>
      e instanceof QuantizationError &&
      /Expected a projector of x float32 \[256, 11\] .* the model is x float32 \[256, 12\]/.test(e.message),
  );
  await assert.rejects(
    encode({ ...codebook, projector: { ...projector, model: Buffer.from('no model') } }, vectors),
    /The projector is no ONNX model/,
  );
  await assert.rejects(
    encode(codebook, { data: new Float32Array(11), numVectors: 1, dim: 11 }),
    /12 numbers/,
  );
});

test('codes go on under one projector and begin anew under another', async () => {
  const next = (p: Projector) =>
    trainInThread({
      ...options,
      ...{ version: 2, projector: p, previous: writeCodebook(codebook) },
      vectors: { ...vectors, data: vectors.data.slice() },
    });
  const same = await next(projector);
  assert.equal(same.moved!.byLevel.length, 3);
  assert.ok(same.moved!.byLevel[0]! < 0.3, String(same.moved!.byLevel));
  const rolled = readCodebook(same.files);
  assert.deepEqual(rolled.projector, projector);
  assert.ok((await matchedCodes(codebook, rolled))[0].some((code) => code >= 0));
  const anew = await next(other);
  assert.equal(anew.moved, null);
  assert.equal(canMatch(codebook, readCodebook(anew.files)), false);
  assert.ok((await matchedCodes(codebook, readCodebook(anew.files)))[0].every((code) => code === -1));
});
