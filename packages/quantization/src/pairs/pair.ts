/** Pairs of items that belong together: what the encoder is trained on (OneMall, section 3.1.1). */
export interface ItemPair {
  /** Indices of the caller's items; a < b where both are products. */
  a: number;
  b: number;
  /** Greater is more alike; only pairs of one kind compare. */
  score: number;
}

/** What a filter left, in the order in which the filters ran. */
export interface FilterCount {
  filter: string;
  before: number;
  after: number;
}

const byScore = (x: ItemPair, y: ItemPair): number => y.score - x.score || x.a - y.a || x.b - y.b;

/**
 * Keeps the best pairs of which no item is in more than `maxPerItem`: frequent items would otherwise be pulled towards
 * everything. Best first; equal scores go by the lower indices.
 */
export function capPairs(pairs: readonly ItemPair[], maxPerItem: number): ItemPair[] {
  const used = new Map<number, number>();
  const free = (item: number): boolean => (used.get(item) ?? 0) < maxPerItem;
  const kept: ItemPair[] = [];
  for (const pair of [...pairs].sort(byScore)) {
    if (!free(pair.a) || !free(pair.b)) continue;
    for (const item of [pair.a, pair.b]) used.set(item, (used.get(item) ?? 0) + 1);
    kept.push(pair);
  }
  return kept;
}

/** Each pair once, with its greatest score. */
export function uniquePairs(pairs: Iterable<ItemPair>): ItemPair[] {
  const best = new Map<string, ItemPair>();
  for (const { a, b, score } of pairs) {
    const [low, high] = a < b ? [a, b] : [b, a];
    const key = `${low},${high}`;
    const known = best.get(key);
    if (!known || known.score < score) best.set(key, { a: low, b: high, score });
  }
  return [...best.values()];
}
