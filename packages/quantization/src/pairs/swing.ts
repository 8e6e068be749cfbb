import { type ItemPair, uniquePairs } from './pair.ts';

export interface SwingOptions {
  /** Users with few items say more about each: w_u = 1 / (|I_u| + alpha1)^beta. */
  alpha1?: number;
  alpha2?: number;
  beta?: number;
  /** Users taken per item, those who came first; its time grows with their square. */
  maxUsersPerItem?: number;
  /** Best partners kept per item. */
  maxPerItem?: number;
}

/**
 * Swing (Yang et al. 2020): two items are alike when pairs of users who have both have little else in common.
 * Swing(i, j) = sum over users u < v who both have i and j of w_u w_v / (alpha2 + |I_u n I_v|).
 *
 * One item at a time, so that memory holds the baskets and the best partners, never a matrix of items.
 * @param baskets different items of each user, as indices below numItems
 * @returns pairs among the best of either item, each once
 */
export function swingPairs(
  baskets: readonly Int32Array[],
  numItems: number,
  options: SwingOptions = {},
): ItemPair[] {
  const { alpha1 = 15, alpha2 = 0, beta = 0.3, maxUsersPerItem = 300, maxPerItem = 40 } = options;
  const usersOf = usersByItem(baskets, numItems, maxUsersPerItem);
  const weights = Float64Array.from(baskets, (basket) => 1 / (basket.length + alpha1) ** beta);
  // An item is in a user's basket where the stamp is that user's turn.
  const stamps = new Int32Array(numItems);
  let turn = 0;
  const scores = new Float64Array(numItems);
  const touched: number[] = [];
  const common: number[] = [];
  const pairs: ItemPair[] = [];
  for (let i = 0; i < numItems; i++) {
    const users = usersOf[i]!;
    for (const [at, u] of users.entries()) {
      turn++;
      for (const item of baskets[u]!) stamps[item] = turn;
      for (let other = at + 1; other < users.length; other++) {
        const v = users[other]!;
        common.length = 0;
        for (const item of baskets[v]!) if (stamps[item] === turn) common.push(item);
        const score = (weights[u]! * weights[v]!) / (alpha2 + common.length);
        for (const j of common) {
          if (j === i) continue;
          if (scores[j] === 0) touched.push(j);
          scores[j]! += score;
        }
      }
    }
    touched.sort((x, y) => scores[y]! - scores[x]! || x - y);
    for (const j of touched.slice(0, maxPerItem))
      pairs.push({ a: Math.min(i, j), b: Math.max(i, j), score: scores[j]! });
    for (const j of touched) scores[j] = 0;
    touched.length = 0;
  }
  return uniquePairs(pairs);
}

function usersByItem(baskets: readonly Int32Array[], numItems: number, max: number): number[][] {
  const users: number[][] = Array.from({ length: numItems }, () => []);
  for (const [u, basket] of baskets.entries())
    for (const item of basket) if (users[item]!.length < max) users[item]!.push(u);
  return users;
}
