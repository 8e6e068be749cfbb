import type { Item } from '@onemall/contracts';

export function item(itemId: string, more: Partial<Item> = {}): Item {
  return {
    itemId,
    scenario: 'product_card',
    validFromMs: 1_000,
    title: `title ${itemId}`,
    category: 'cups',
    tags: [],
    priceCents: 100,
    sellerId: 's',
    productId: null,
    contentVideo: false,
    embedding: null,
    ...more,
  };
}

/** A vector of its own for each number, the same each time. */
export const vectorOf = (n: number, dim = 8): number[] =>
  Array.from({ length: dim }, (_, d) => Math.fround(Math.sin(1 + n * 12.9898 + d * 78.233)));
