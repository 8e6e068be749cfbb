/** The final order of beam and dense head together: log p of the SID + weight x cosine of user and item. */
import type { ServedItem } from './serve-items.ts';

/**
 * @param user float32 [D], of length 1
 * @param vectors float32 [D] of each item, of length 1
 * @returns the items with their new scores, best first; equal ones stay in beam order
 */
export function addDenseScores(
  items: readonly ServedItem[],
  user: Float32Array,
  vectors: readonly Float32Array[],
  weight: number,
): ServedItem[] {
  return items
    .map((item, i) => ({ ...item, score: item.score + weight * dot(user, vectors[i]!) }))
    .sort((a, b) => b.score - a.score);
}

function dot(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length)
    throw new Error(`The user's vector has ${a.length} values, the item's ${b.length}: not of one policy`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
