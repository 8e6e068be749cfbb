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
