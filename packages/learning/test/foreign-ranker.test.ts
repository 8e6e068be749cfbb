/** A ranker that another tool wrote (fixtures/foreign-ranker.py, Python onnx) behind the contract of the README. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FEATURE_VERSION, NUM_DENSE, NUM_IDS } from '@onemall/features';
import { loadRanker, PublishedModelError, RANKER_FORMAT, type RankerManifest } from '../src/index.ts';

function filesOf(fixture: string, over: Partial<RankerManifest> = {}): Map<string, Uint8Array> {
  const manifest: RankerManifest = {
    ...{ model: 'RANKER', format: RANKER_FORMAT, rankerVersion: 'mine-1', step: 0 },
    ...{ scenarios: ['product_card'], featureVersion: FEATURE_VERSION, numDense: NUM_DENSE, numIds: NUM_IDS },
    ...{ batchRows: 16, egpmScale: { product_card: 10 }, metrics: {}, files: { ranker: 'mine.onnx' } },
    ...over,
  };
  return new Map<string, Uint8Array>([
    ['mine.onnx', readFileSync(new URL(`./fixtures/${fixture}.onnx`, import.meta.url))],
    ['ranker.json', Buffer.from(JSON.stringify(manifest))],
  ]);
}

test('a ranker of another tool loads and scores as its formula says, over several batches', async () => {
  const ranker = await loadRanker(filesOf('foreign-ranker'));
  const n = 40;
  const dense = Float32Array.from({ length: n * NUM_DENSE }, (_, i) => Math.sin(i));
  const ids = Int32Array.from({ length: n * NUM_IDS }, (_, i) => i);
  const { pCtr, pCtcvr, buyValueCents } = await ranker.score(dense, ids, n);
  const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
  for (let i = 0; i < n; i++) {
    const x = dense[i * NUM_DENSE]!;
    assert.ok(Math.abs(pCtr[i]! - sigmoid(x - 1)) < 1e-6);
    assert.ok(Math.abs(pCtcvr[i]! - sigmoid(0.5 * x - 3)) < 1e-6);
    assert.ok(Math.abs(buyValueCents[i]! - Math.exp(0.25 * x + 2)) < 1e-4);
  }
  await ranker.close();
});

test('what breaks the contract is told by name when it is loaded, not when it scores', async () => {
  const broken: [string, RegExp][] = [
    ['foreign-ranker-names', /it has no output pCtr \(it has ctr, pCtcvr, buyValueCents\)/],
    ['foreign-ranker-types', /input ids is int64, expected int32/],
    ['foreign-ranker-rows', /input dense has shape \[32,33\], expected \[16,33\]/],
    ['foreign-ranker-logits', /output pCtr gives -1, expected a probability/],
  ];
  for (const [fixture, message] of broken)
    await assert.rejects(
      loadRanker(filesOf(fixture)),
      (error: unknown) =>
        error instanceof PublishedModelError &&
        message.test(error.message) &&
        /mine\.onnx does not fit the contract of a ranker: .* It must take dense float32 \[16, 33\]/.test(
          error.message,
        ),
      fixture,
    );
  const ranker = await loadRanker(filesOf('foreign-ranker-rows', { batchRows: 32 }));
  await ranker.close();
});
