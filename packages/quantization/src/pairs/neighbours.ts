/** Nearest neighbours among item vectors, such as those of a two-tower retrieval model. */
import { cpuSession, GraphBuilder, type Value } from '@onemall/learning/onnx';
import * as ort from 'onnxruntime-node';
import { ROWS_PER_RUN, runInRows } from '../nearest-search.ts';
import { requireFinite, type Vectors } from '../vectors.ts';
import { type ItemPair, uniquePairs } from './pair.ts';

/** Items compared with at a time: memory is this many scores per row, whatever the number of items. */
const BLOCK = 4_096;

export interface Neighbours {
  /** int32 [N, k], most alike first; -1 where there are fewer than k others. */
  indices: Int32Array;
  /** float32 [N, k], cosine similarity. */
  similarities: Float32Array;
  k: number;
}

/**
 * The k items of greatest cosine similarity of each item, not itself.
 * @throws QuantizationError for numbers that are not finite
 */
export async function nearestItems(vectors: Vectors, k: number, numThreads = 1): Promise<Neighbours> {
  requireFinite(vectors);
  const unit = unitLength(vectors);
  const { data, numVectors, dim } = unit;
  const indices = new Int32Array(numVectors * k).fill(-1);
  const similarities = new Float32Array(numVectors * k).fill(Number.NEGATIVE_INFINITY);
  for (let begin = 0; begin < numVectors; begin += BLOCK) {
    const count = Math.min(BLOCK, numVectors - begin);
    const wanted = Math.min(k + 1, count);
    const session = await ort.InferenceSession.create(
      similarityGraph(data.subarray(begin * dim, (begin + count) * dim), dim, wanted),
      cpuSession(numThreads),
    );
    try {
      await runInRows(session, unit, (outputs, from, rows) => {
        const scores = outputs.scores!.data as Float32Array;
        const places = outputs.places!.data as Int32Array;
        for (let r = 0; r < rows; r++)
          for (let n = 0; n < wanted; n++) {
            const other = begin + places[r * wanted + n]!;
            if (other !== from + r)
              insert(indices, similarities, (from + r) * k, k, other, scores[r * wanted + n]!);
          }
      });
    } finally {
      await session.release();
    }
  }
  return { indices, similarities, k };
}

/** Neighbours of at least this cosine similarity as pairs, each once. */
export function neighbourPairs({ indices, similarities, k }: Neighbours, minSimilarity: number): ItemPair[] {
  const pairs: ItemPair[] = [];
  for (let at = 0; at < indices.length; at++) {
    const [a, b, score] = [Math.floor(at / k), indices[at]!, similarities[at]!];
    if (b >= 0 && score >= minSimilarity) pairs.push({ a: Math.min(a, b), b: Math.max(a, b), score });
  }
  return uniquePairs(pairs);
}

/** Puts a neighbour into the sorted row that begins at `row`. Lower indices come first among equals, as they are found first. */
function insert(
  indices: Int32Array,
  similarities: Float32Array,
  row: number,
  k: number,
  item: number,
  similarity: number,
): void {
  let at = row + k - 1;
  if (similarity <= similarities[at]!) return;
  for (; at > row && similarities[at - 1]! < similarity; at--) {
    similarities[at] = similarities[at - 1]!;
    indices[at] = indices[at - 1]!;
  }
  similarities[at] = similarity;
  indices[at] = item;
}

function unitLength({ data, numVectors, dim }: Vectors): Vectors {
  const unit = new Float32Array(data.length);
  for (let i = 0; i < numVectors; i++) {
    let squares = 0;
    for (let at = i * dim; at < (i + 1) * dim; at++) squares += data[at]! * data[at]!;
    const length = Math.sqrt(squares) || 1;
    for (let at = i * dim; at < (i + 1) * dim; at++) unit[at] = data[at]! / length;
  }
  return { data: unit, numVectors, dim };
}

/** Input x float32 [R, dim]; outputs scores float32 [R, wanted] and places int32 [R, wanted] among the items. */
function similarityGraph(items: Float32Array, dim: number, wanted: number): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const count = items.length / dim;
  const x = g.input('x', [ROWS_PER_RUN, dim], 'float32');
  const scores = g.matmul(x, g.initializer('items', [count, dim], 'float32', items), false, true);
  const shape = [ROWS_PER_RUN, wanted];
  const [best, places] = g.emitMany(
    'TopK',
    [scores, g.int64([wanted])],
    [
      { shape, type: 'float32' },
      { shape, type: 'int64' },
    ],
  ) as [Value, Value];
  g.output('scores', best);
  g.output('places', g.cast(places, 'int32'));
  return g.encode();
}
