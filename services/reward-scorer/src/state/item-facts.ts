/** Features of items and rooms as of a moment, from the tables items and live-sids: what the join gave the ranker in training. */
import type { Item, ItemFeatures, LiveSid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';

type OwnFacts = Omit<ItemFeatures, 'sellingItemIds'>;

export class ItemFacts {
  readonly #items = new AsOfTable<OwnFacts>();
  /** codebookVersion -> rooms; each version repeats the products on sale. */
  readonly #rooms = new Map<number, AsOfTable<string[]>>();
  #versions: number[] = [];

  /** @param timestampMs of the record: a tombstone ends the item from then on */
  putItem(itemId: string, item: Item | null, timestampMs: number): void {
    if (item === null) {
      this.#items.put(itemId, timestampMs, null);
      return;
    }
    const { category, tags, priceCents, sellerId, validFromMs } = item;
    this.#items.put(itemId, validFromMs, { category, tags, priceCents, sellerId, validFromMs });
  }

  /** @param key liveId:codebookVersion */
  putRoom(key: string, room: LiveSid | null): void {
    const colon = key.lastIndexOf(':');
    const liveId = key.slice(0, colon);
    const version = Number(key.slice(colon + 1));
    let rooms = this.#rooms.get(version);
    if (!rooms) {
      rooms = new AsOfTable<string[]>();
      this.#rooms.set(version, rooms);
      this.#versions = [...this.#rooms.keys()].sort((a, b) => b - a);
    }
    if (room === null) rooms.remove(liveId);
    else rooms.put(liveId, room.validFromMs, room.sellingItemIds);
  }

  /**
   * The features that were valid then; for an item that is younger than the request its newest ones, for it can be
   * retrieved now. null where it is unknown or gone.
   */
  asOf(itemId: string, timeMs: number): ItemFeatures | null {
    const own = this.#items.asOf(itemId, timeMs) ?? this.#items.newest(itemId);
    return own && { ...own, sellingItemIds: this.#selling(itemId, timeMs) };
  }

  #selling(liveId: string, timeMs: number): string[] {
    for (const version of this.#versions) {
      const selling = this.#rooms.get(version)!.asOf(liveId, timeMs);
      if (selling) return selling;
    }
    return [];
  }

  /** Drops versions that no rollout at or after timeMs sees. */
  forgetBefore(timeMs: number): void {
    this.#items.forgetBefore(timeMs);
    for (const rooms of this.#rooms.values()) rooms.forgetBefore(timeMs);
  }

  get numItems(): number {
    return this.#items.size;
  }
}
