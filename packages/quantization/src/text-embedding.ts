/**
 * The default item encoder: needs no download and reads any language. A bag of hashed character n-grams of the title,
 * with category and tags as whole words, goes through a fixed random projection (Achlioptas 2003: entries +1 and -1
 * keep angles up to noise of 1 / sqrt(dim)). Equal text gives equal vectors on every machine, forever.
 */
import { QuantizationError } from './vectors.ts';

export interface ItemText {
  itemId: string;
  title: string;
  category: string;
  tags: readonly string[];
}

export const NGRAM_SIZES = [3, 4, 5] as const;
const CATEGORY_WEIGHT = 0.7;
const TAGS_WEIGHT = 0.5;

/**
 * Unit vector of `dim` numbers. An item without any text is embedded by its id: it gets a place of its own, but one
 * that means nothing.
 * @throws QuantizationError for a dim that is not a whole number of at least 1
 */
export function textEmbedding(item: ItemText, dim: number): Float32Array {
  if (!Number.isInteger(dim) || dim < 1)
    throw new QuantizationError(
      `A text embedding needs a whole number of dimensions of at least 1, got ${dim}`,
    );
  const sum = new Float64Array(dim);
  const title = characterNgrams(item.title);
  addField(sum, title, 1);
  if (item.category !== '')
    addField(sum, new Map([[`category ${normalize(item.category)}`, 1]]), CATEGORY_WEIGHT);
  addField(sum, new Map(item.tags.map((tag) => [`tag ${normalize(tag)}`, 1])), TAGS_WEIGHT);
  if (sum.every((v) => v === 0)) addField(sum, new Map([[`id ${item.itemId}`, 1]]), 1);
  let squares = 0;
  for (const v of sum) squares += v * v;
  const length = Math.sqrt(squares) || 1;
  return Float32Array.from(sum, (v) => v / length);
}

/** Counts of the n-grams of each word with its borders, e.g. "cup" -> _cu, cup, up_, _cup, cup_, _cup_ */
export function characterNgrams(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of normalize(text).split(/[^\p{L}\p{N}]+/u)) {
    if (word === '') continue;
    const letters = [...`_${word}_`];
    for (const n of NGRAM_SIZES)
      for (let i = 0; i + n <= letters.length; i++) {
        const gram = letters.slice(i, i + n).join('');
        counts.set(gram, (counts.get(gram) ?? 0) + 1);
      }
  }
  return counts;
}

const normalize = (text: string): string => text.normalize('NFKC').toLowerCase();

/** Adds a field's projected bag, scaled to `weight` whatever its number of features. */
function addField(sum: Float64Array, features: Map<string, number>, weight: number): void {
  let squares = 0;
  for (const count of features.values()) squares += (1 + Math.log(count)) ** 2;
  if (squares === 0) return;
  const unit = weight / Math.sqrt(squares);
  for (const [feature, count] of features) {
    const value = unit * (1 + Math.log(count));
    const hash = hash32(feature);
    let bits = 0;
    for (let d = 0; d < sum.length; d++) {
      // One hashed word gives the signs of 32 dimensions.
      if (d % 32 === 0) bits = mix(hash ^ Math.imul(1 + d / 32, 0x9e3779b9));
      sum[d]! += bits & 1 ? value : -value;
      bits >>>= 1;
    }
  }
}

/** FNV-1a over UTF-16 units. */
function hash32(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix(h);
}

/** Finalizer of MurmurHash3. */
function mix(value: number): number {
  let h = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
