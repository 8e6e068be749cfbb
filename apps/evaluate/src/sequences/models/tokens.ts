/** Semantic IDs of a set's items, by where their vectors come from and by the form of the tokenizer. */
import { codesPerLevel, encode, measureSids, textEmbedding, trainCodebook } from '@onemall/quantization';
import { DataError, type SequenceSet } from '../stages/parse-sequences.ts';

export interface Tokens {
  /** int32 [numItems, levels] */
  codes: Int32Array;
  numCodes: number[];
  /** Shares as in `measureSids`, over all levels. */
  conflict: number;
  exclusive: number;
}
export interface Tokenizer {
  tokens: Tokens;
  /** Codes of items that come later, int32 [items, levels]; -1 for one whose SID has no number left. */
  encodeLater(data: Float32Array): Promise<Int32Array>;
}

/**
 * fsq: two k-means levels and FSQ (OneMall); rq: three k-means levels and a token that numbers the items of a SID (TIGER).
 */
export type TokenForm = 'fsq' | 'rq';

/** FSQ has this many codes for one of a k-means level: 256, 256, 1024 for some ten thousand items. */
const FSQ_FACTOR = 4;
const TEXT_DIM = 256;

/** float32 [numItems, dim] of the items' texts, by the tokenizer's default encoder. @throws DataError for a set without */
export function textVectors(set: SequenceSet): { data: Float32Array; dim: number } {
  if (!set.texts)
    throw new DataError(
      `${set.name} has no item texts (NAME_item_text.json) and no embeddings (NAME_embeddings.f32), which this row's tokens are made of`,
    );
  const data = new Float32Array(set.numItems * TEXT_DIM);
  set.texts.forEach((title, i) => {
    data.set(textEmbedding({ itemId: String(i + 1), title, category: '', tags: [] }, TEXT_DIM), i * TEXT_DIM);
  });
  return { data, dim: TEXT_DIM };
}

export async function makeTokenizer(
  vectors: { data: Float32Array; dim: number },
  form: TokenForm,
  seed: number,
): Promise<Tokenizer> {
  const { dim } = vectors;
  const numVectors = vectors.data.length / dim;
  const mean = meanOf(vectors);
  const unit = { data: centredUnit(vectors, mean), dim, numVectors };
  const k = codesPerLevel(numVectors);
  const codebook = await trainCodebook(unit, {
    scenario: 'sequences',
    version: 1,
    numCodes: form === 'fsq' ? [k, k, FSQ_FACTOR * k] : [k, k, k],
    lastLevel: form === 'fsq' ? 'fsq' : 'kmeans',
    cutoffMs: 0,
    seed,
  });
  const codes = await encode(codebook, unit);
  const { conflict, exclusive } = measureSids(codes, codebook.numCodes);
  const numbers = form === 'rq' ? new Numbers(codebook.numCodes) : null;
  const all = numbers?.added(codes) ?? codes;
  const numCodes = [...codebook.numCodes, ...(numbers ? [numbers.most] : [])];
  return {
    tokens: { codes: all, numCodes, conflict, exclusive },
    async encodeLater(data) {
      const later = { data: centredUnit({ data, dim }, mean), dim, numVectors: data.length / dim };
      const own = await encode(codebook, later);
      return numbers?.added(own, numCodes.at(-1)) ?? own;
    },
  };
}

/** A last token that tells the items of one SID apart, in the order in which they come. */
class Numbers {
  /** Most items on one SID so far. */
  most = 1;
  readonly #levels: number;
  readonly #seen = new Map<string, number>();

  constructor(numCodes: readonly number[]) {
    this.#levels = numCodes.length;
  }

  /** @param limit numbers below it; all codes of an item that would get a higher one are -1 */
  added(codes: Int32Array, limit = Number.POSITIVE_INFINITY): Int32Array {
    const levels = this.#levels;
    const numItems = codes.length / levels;
    const out = new Int32Array(numItems * (levels + 1)).fill(-1);
    for (let i = 0; i < numItems; i++) {
      const sid = codes.subarray(i * levels, (i + 1) * levels);
      const key = sid.join();
      const earlier = this.#seen.get(key) ?? 0;
      if (earlier >= limit) continue;
      this.#seen.set(key, earlier + 1);
      this.most = Math.max(this.most, earlier + 1);
      out.set(sid, i * (levels + 1));
      out[i * (levels + 1) + levels] = earlier;
    }
    return out;
  }
}

function meanOf({ data, dim }: { data: Float32Array; dim: number }): Float64Array {
  const n = data.length / dim;
  const mean = new Float64Array(dim);
  for (let i = 0; i < data.length; i++) mean[i % dim]! += data[i]! / n;
  return mean;
}

/** Rows minus the mean, of length 1. */
function centredUnit({ data, dim }: { data: Float32Array; dim: number }, mean: Float64Array): Float32Array {
  const n = data.length / dim;
  const out = new Float32Array(data.length);
  for (let row = 0; row < n; row++) {
    let squares = 1e-12;
    for (let d = 0; d < dim; d++) squares += (data[row * dim + d]! - mean[d]!) ** 2;
    const scale = 1 / Math.sqrt(squares);
    for (let d = 0; d < dim; d++) out[row * dim + d] = (data[row * dim + d]! - mean[d]!) * scale;
  }
  return out;
}

/** Divided by their standard deviation over all numbers: what joins a history's codes. */
export function unitVariance(data: Float32Array): Float32Array {
  let sum = 0;
  let squares = 0;
  for (const v of data) {
    sum += v;
    squares += v * v;
  }
  const mean = sum / data.length;
  const scale = 1 / Math.sqrt(squares / data.length - mean * mean || 1);
  return data.map((v) => v * scale);
}
