/** How often an item's partner is among its nearest items: what an encoder is judged by. */
import { cpuSession, GraphBuilder } from '@onemall/learning/onnx';
import { ROWS_PER_RUN, runInRows, type Vectors } from '@onemall/quantization';
import * as ort from 'onnxruntime-node';

/**
 * Recall@K over pairs: share of pairs (a, b) of which b is among the K items of greatest cosine similarity to a, all items
 * but a being candidates. Where several items are exactly as near as b, such as those of equal text, b is taken to stand
 * in the middle of them.
 * @param pairs rows of the vectors, int32 [N, 2]
 */
export async function pairRecall(
  vectors: Vectors,
  pairs: Int32Array,
  ks: readonly number[],
): Promise<Record<number, number>> {
  const { data, numVectors, dim } = unitRows(vectors);
  const g = new GraphBuilder({ portable: true });
  const items = g.initializer('items', [numVectors, dim], 'float32', data);
  g.output('scores', g.matmul(g.input('x', [ROWS_PER_RUN, dim], 'float32'), items, false, true));
  const session = await ort.InferenceSession.create(g.encode(), cpuSession(1));
  const numPairs = pairs.length / 2;
  const queries = new Float32Array(numPairs * dim);
  for (let i = 0; i < numPairs; i++)
    queries.set(data.subarray(pairs[2 * i]! * dim, (pairs[2 * i]! + 1) * dim), i * dim);
  const hits = new Map(ks.map((k) => [k, 0]));
  try {
    await runInRows(session, { data: queries, numVectors: numPairs, dim }, (outputs, from, count) => {
      const scores = outputs.scores!.data as Float32Array;
      for (let r = 0; r < count; r++) {
        const [a, b] = [pairs[2 * (from + r)]!, pairs[2 * (from + r) + 1]!];
        const row = scores.subarray(r * numVectors, (r + 1) * numVectors);
        const own = row[b]!;
        let nearer = 0;
        let equal = 0;
        for (let i = 0; i < numVectors; i++) {
          if (i === a || i === b) continue;
          // Products of equal rows differ in the last bits.
          if (row[i]! > own + 1e-6) nearer++;
          else if (row[i]! > own - 1e-6) equal++;
        }
        for (const k of ks) if (nearer + equal / 2 < k) hits.set(k, hits.get(k)! + 1);
      }
    });
  } finally {
    await session.release();
  }
  return Object.fromEntries(ks.map((k) => [k, numPairs > 0 ? hits.get(k)! / numPairs : 0]));
}

function unitRows({ data, numVectors, dim }: Vectors): Vectors {
  const unit = data.slice();
  for (let i = 0; i < numVectors; i++) {
    const row = unit.subarray(i * dim, (i + 1) * dim);
    const length = Math.hypot(...row) || 1;
    for (let d = 0; d < dim; d++) row[d]! /= length;
  }
  return { data: unit, numVectors, dim };
}
