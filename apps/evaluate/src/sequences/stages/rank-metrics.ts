/** Recall and normalized discounted cumulative gain of one relevant item per question. */

export interface RankMetrics {
  'R@5': number;
  'R@10': number;
  'N@5': number;
  'N@10': number;
}
export const METRICS = ['R@5', 'R@10', 'N@5', 'N@10'] as const;

/** in: a user's earlier items stay in the list; out: they are taken from it (the target stays). */
export type Protocol = 'in' | 'out';
export const PROTOCOLS = ['in', 'out'] as const;
export type Ranks = Record<Protocol, Int32Array>;

/** Rank of a target that is not in a list of candidates. */
export const NOT_FOUND = 2 ** 31 - 1;

/** @param ranks of the targets, 0 being the first place */
export function rankMetrics(ranks: Int32Array): RankMetrics {
  const recall = (k: number): number => mean(ranks, (r) => (r < k ? 1 : 0));
  const gain = (k: number): number => mean(ranks, (r) => (r < k ? 1 / Math.log2(r + 2) : 0));
  return { 'R@5': recall(5), 'R@10': recall(10), 'N@5': gain(5), 'N@10': gain(10) };
}

/**
 * Ranks of an item among all: items with a greater score come first, and of equal ones those with the lower number.
 * @param scores of item i + 1 at begin + i
 */
export function rankOfTarget(
  scores: Float32Array,
  begin: number,
  numItems: number,
  target: number,
  history: Int32Array,
): Record<Protocol, number> {
  const own = scores[begin + target - 1]!;
  if (!Number.isFinite(own)) throw new Error(`The score of item ${target} is ${own}`);
  const end = begin + numItems;
  const place = begin + target - 1;
  // The loop over all items is most of an evaluation's time: plain comparisons, no calls.
  let rank = 0;
  for (let i = begin; i < place; i++) if (scores[i]! >= own) rank++;
  for (let i = place + 1; i < end; i++) if (scores[i]! > own) rank++;
  let earlier = 0;
  for (const item of new Set(history)) {
    const score = scores[begin + item - 1]!;
    if (item !== target && (score > own || (score === own && item < target))) earlier++;
  }
  return { in: rank, out: rank - earlier };
}

/** Rank of the target in a list of different items, best first. */
export function rankInList(
  items: ArrayLike<number>,
  target: number,
  history: Int32Array,
): Record<Protocol, number> {
  const earlier = new Set(history);
  let out = 0;
  for (let i = 0; i < items.length; i++) {
    if (items[i] === target) return { in: i, out };
    if (!earlier.has(items[i]!)) out++;
  }
  return { in: NOT_FOUND, out: NOT_FOUND };
}

function mean(ranks: Int32Array, value: (rank: number) => number): number {
  let sum = 0;
  for (const rank of ranks) sum += value(rank);
  return ranks.length === 0 ? 0 : sum / ranks.length;
}
