/** Turns SIDs into items: several items on one SID come in the order of popularity or freshness. */
import { candidateAt, type FoundSids } from './search-beam.ts';

/** popularity, freshness: within a SID; share: the SID's probability falls to its items by their share of what was seen of it. */
export type ItemOrder = 'popularity' | 'freshness' | 'share';

/** What the order needs to know of an item. */
export interface ItemStanding {
  popularity: number;
  /** Event time of its newest version. */
  freshMs: number;
  /** Exposures and ten times clicks, as of now. */
  seen: number;
}
export interface Shelves {
  /** Items that have the SID now. */
  itemsOf(packed: number): Iterable<string>;
  standing(itemId: string): ItemStanding;
}

export interface ServedItem {
  itemId: string;
  sid: { c1: number; c2: number; c3: number };
  /** log p of its SID; with order share of the item itself. */
  score: number;
}

/** Items of one SID, best first; equal ones by id, so that every replica answers the same. */
export function orderItems(shelves: Shelves, packed: number, order: ItemOrder): string[] {
  const items = [...shelves.itemsOf(packed)];
  if (items.length < 2) return items;
  const standing = new Map<string, ItemStanding>();
  for (const itemId of items) standing.set(itemId, shelves.standing(itemId));
  return [...standing.keys()].sort((a, b) => {
    const left = standing.get(a)!;
    const right = standing.get(b)!;
    const byPopularity = right.popularity - left.popularity;
    const byFreshness = right.freshMs - left.freshMs;
    return (
      (order === 'freshness' ? byFreshness || byPopularity : byPopularity || byFreshness) || (a < b ? -1 : 1)
    );
  });
}

/** The first k distinct items in beam order. `accept` refuses items that the request filters out. */
export function serveItems(
  found: FoundSids,
  shelves: Shelves,
  options: { k: number; order: ItemOrder; accept?: (itemId: string) => boolean },
): ServedItem[] {
  if (options.order === 'share') return serveByShare(found, shelves, options);
  const served: ServedItem[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < found.size; i++) {
    const { c1, c2, c3, packed, score } = candidateAt(found, i);
    for (const itemId of orderItems(shelves, packed, options.order)) {
      if (seen.has(itemId) || options.accept?.(itemId) === false) continue;
      seen.add(itemId);
      served.push({ itemId, sid: { c1, c2, c3 }, score });
      if (served.length === options.k) return served;
    }
  }
  return served;
}

/**
 * Rare near-duplicates on a good SID do not come before what is popular on the next one. Every item counts once more than it was
 * seen, as in the weights of the trie.
 */
function serveByShare(
  found: FoundSids,
  shelves: Shelves,
  { k, accept }: { k: number; accept?: (itemId: string) => boolean },
): ServedItem[] {
  const served = new Map<string, ServedItem>();
  for (let i = 0; i < found.size; i++) {
    const { c1, c2, c3, packed, score } = candidateAt(found, i);
    const items = orderItems(shelves, packed, 'share');
    const counts = items.map((itemId) => 1 + shelves.standing(itemId).seen);
    const total = counts.reduce((a, b) => a + b, 0);
    for (const [at, itemId] of items.entries())
      if (!served.has(itemId) && accept?.(itemId) !== false)
        served.set(itemId, { itemId, sid: { c1, c2, c3 }, score: score + Math.log(counts[at]! / total) });
  }
  // equal ones stay in beam order
  return [...served.values()].sort((a, b) => b.score - a.score).slice(0, k);
}

/** The one item that the retriever would serve for a SID, or null where none exists. */
export const firstItem = (shelves: Shelves, packed: number, order: ItemOrder): string | null =>
  orderItems(shelves, packed, order)[0] ?? null;
