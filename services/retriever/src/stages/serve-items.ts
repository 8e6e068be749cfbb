/** Turns SIDs into items: several items on one SID come in the order of popularity or freshness. */
import { candidateAt, type FoundSids } from './search-beam.ts';

export type ItemOrder = 'popularity' | 'freshness';

/** What the order needs to know of an item. */
export interface ItemStanding {
  popularity: number;
  /** Event time of its newest version. */
  freshMs: number;
}
export interface Shelves {
  /** Items that have the SID now. */
  itemsOf(packed: number): Iterable<string>;
  standing(itemId: string): ItemStanding;
}

export interface ServedItem {
  itemId: string;
  sid: { c1: number; c2: number; c3: number };
  /** log p of its SID. */
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
      (order === 'popularity' ? byPopularity || byFreshness : byFreshness || byPopularity) || (a < b ? -1 : 1)
    );
  });
}

/** The first k distinct items in beam order. `accept` refuses items that the request filters out. */
export function serveItems(
  found: FoundSids,
  shelves: Shelves,
  options: { k: number; order: ItemOrder; accept?: (itemId: string) => boolean },
): ServedItem[] {
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

/** The one item that the retriever would serve for a SID, or null where none exists. */
export const firstItem = (shelves: Shelves, packed: number, order: ItemOrder): string | null =>
  orderItems(shelves, packed, order)[0] ?? null;
