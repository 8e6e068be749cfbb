import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sidLayout } from '@onemall/features';
import type { Codebook } from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';
import { startFromContent } from '../src/stages/start-from-content.ts';

const random = new SeededRandom(3);
const normals = (n: number): Float32Array => Float32Array.from({ length: n }, () => random.normal());
const scenarios = ['product_card', 'short_video'];
const numCodes = { product_card: [5, 4, 2], short_video: [3, 6, 2] } as const;
const layout = sidLayout(scenarios, numCodes);
const CONTENT = 6;

/** A codebook whose m holds one content vector for cards and two for videos. */
const codebook = (scenario: 'product_card' | 'short_video', dim: number): Codebook => ({
  scenario,
  version: 1,
  numCodes: numCodes[scenario],
  dim,
  levels: [0, 1, 2].map((level) => ({
    kind: 'kmeans',
    numCodes: numCodes[scenario][level as 0 | 1 | 2],
    centroids: normals(numCodes[scenario][level as 0 | 1 | 2] * dim),
  })),
  cutoffMs: 0,
});
const codebooks = [codebook('product_card', CONTENT), codebook('short_video', 2 * CONTENT)];
const cosine = (a: Float32Array, b: Float32Array): number => {
  const dot = a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  return dot / Math.hypot(...a) / Math.hypot(...b);
};

function started(dim: number, from: readonly Codebook[] = codebooks) {
  const tensors = new Map<string, Float32Array>();
  for (const level of [0, 1, 2] as const) {
    tensors.set(`sid.level${level + 1}`, normals(layout.rows[level] * dim));
    tensors.set(`head.level${level + 1}`, normals(dim * layout.rows[level]));
  }
  const before = new Map([...tensors].map(([name, values]) => [name, values.slice()]));
  startFromContent(
    { tensors, scalars: {} },
    from.map((codebook) => ({ codebook, fromTower: false })),
    { scenarios, numCodes },
    1,
  );
  const row = (level: number, i: number) =>
    tensors.get(`sid.level${level + 1}`)!.slice(i * dim, (i + 1) * dim);
  const column = (level: number, i: number) => {
    const columns = layout.rows[level as 0 | 1 | 2];
    return Float32Array.from(
      { length: dim },
      (_, d) => tensors.get(`head.level${level + 1}`)![d * columns + i]!,
    );
  };
  return { tensors, before, row, column };
}

test('rows and columns of a code begin as its centroid, the second level in the same measure', () => {
  const { tensors, before, row, column } = started(CONTENT);
  const level2 = codebooks[0]!.levels[1]!;
  assert.ok(level2.kind === 'kmeans');
  for (let code = 0; code < 4; code++) {
    const centroid = level2.centroids.subarray(code * CONTENT, (code + 1) * CONTENT);
    assert.ok(cosine(row(1, code), centroid) > 0.99999);
    assert.ok(cosine(column(1, code), centroid) > 0.99999);
  }
  // m of a video is the product's vector and its own: both count
  const video = codebooks[1]!.levels[1]!;
  assert.ok(video.kind === 'kmeans');
  const m = video.centroids.subarray(0, 2 * CONTENT);
  const folded = Float32Array.from({ length: CONTENT }, (_, d) => m[d]! + m[CONTENT + d]!);
  assert.ok(cosine(row(1, layout.offsets.get('short_video')![1]), folded) > 0.99999);

  const lengths = Array.from({ length: 5 }, (_, code) => Math.hypot(...row(0, code)));
  assert.ok(Math.abs(lengths.reduce((a, b) => a + b, 0) / 5 - 1) < 1e-5);
  for (const name of ['sid.level3', 'head.level3']) assert.deepEqual(tensors.get(name), before.get(name));
});

test('centroids behind a projector have a length and a space of their own', () => {
  const behind = codebook('product_card', 4);
  const projector = { inDim: CONTENT, outDim: 4, trainedOn: 'pairs/1', model: new Uint8Array(0) };
  const projected = { ...behind, dim: CONTENT, projector };
  const { row } = started(4, [projected, codebooks[1]!]);
  const level2 = behind.levels[1]!;
  assert.ok(level2.kind === 'kmeans');
  for (let code = 0; code < 4; code++)
    assert.ok(cosine(row(1, code), level2.centroids.subarray(code * 4, (code + 1) * 4)) > 0.99999);
});

test('a wider model keeps the likeness of codes', () => {
  const narrow = started(CONTENT);
  const wide = started(64);
  for (let a = 0; a < 4; a++)
    for (let b = 0; b < a; b++) {
      const kept = cosine(wide.row(1, a), wide.row(1, b));
      assert.ok(Math.abs(kept - cosine(narrow.row(1, a), narrow.row(1, b))) < 0.4, `${a} ${b}: ${kept}`);
    }
});
