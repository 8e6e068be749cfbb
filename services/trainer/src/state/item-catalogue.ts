import type { Item, ItemFeatures, LiveSid } from '@onemall/contracts';

export interface CataloguedItem {
  itemId: string;
  scenario: string;
  features: ItemFeatures;
}

/** What the item tower reads of each item now: its newest record, and of a live room the products on sale. */
export class ItemCatalogue {
  /** Iterated in the order of `takeInTurn`. */
  readonly #items = new Map<string, Item>();
  /** Products on sale by room; one that sells nothing is closed or not yet open. */
  readonly #selling = new Map<string, readonly string[]>();
  readonly #scenarios: ReadonlySet<string>;
  #removed = new Set<string>();

  /** @param scenarios items of others are passed over: the model does not know them */
  constructor(scenarios: Iterable<string>) {
    this.#scenarios = new Set(scenarios);
  }

  putItem(itemId: string, item: Item | null): void {
    if (item && !this.#scenarios.has(item.scenario)) return;
    if (item) {
      this.#items.set(itemId, { ...item, embedding: null });
      this.#removed.delete(itemId);
    } else if (this.#items.delete(itemId)) this.#removed.add(itemId);
  }
  putRoom({ liveId, sellingItemIds }: LiveSid): void {
    this.#selling.set(liveId, sellingItemIds);
  }

  /** Rooms that sell something now. */
  rooms(): CataloguedItem[] {
    return [...this.#selling].flatMap(([liveId, sellingItemIds]) => {
      const item = this.#items.get(liveId);
      return item && sellingItemIds.length > 0 ? [described(item, sellingItemIds)] : [];
    });
  }
  /** The next so many that are no rooms: those that waited longest since they came or were taken last. */
  takeInTurn(count: number): CataloguedItem[] {
    const taken: Item[] = [];
    for (const item of this.#items.values()) {
      if (taken.length === count) break;
      if (!this.#selling.has(item.itemId)) taken.push(item);
    }
    for (const item of taken) {
      this.#items.delete(item.itemId);
      this.#items.set(item.itemId, item);
    }
    return taken.map((item) => described(item, []));
  }
  /** Items removed since the last call. */
  takeRemoved(): string[] {
    const removed = [...this.#removed];
    this.#removed = new Set();
    return removed;
  }
}

const described = (
  { itemId, scenario, category, tags, priceCents, sellerId, validFromMs }: Item,
  sellingItemIds: readonly string[],
): CataloguedItem => ({
  itemId,
  scenario,
  features: { category, tags, priceCents, sellerId, validFromMs, sellingItemIds: [...sellingItemIds] },
});
