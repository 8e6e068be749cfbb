/** Items and rooms as of a moment, from the tables items and live-sids: what the join gave the ranker in training. */
import type { Item, LiveSid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';
import { type RankerItem, rankerItem } from '@onemall/features';

const NOTHING_ON_SALE: string[] = [];

export class ItemFacts {
  /** Without products on sale, which #rooms has. */
  readonly #items = new AsOfTable<RankerItem>();
  /** One object for all equal texts: a look-up by a text that was just looked up fetches nothing from memory. */
  readonly #categories = new Map<string, string>();
  /** codebookVersion -> rooms; each version repeats the products on sale. */
  readonly #rooms = new Map<number, AsOfTable<string[]>>();
  #versions: number[] = [];

  /** @param timestampMs of the record: a tombstone ends the item from then on */
  putItem(itemId: string, item: Item | null, timestampMs: number): void {
    if (item === null) {
      this.#items.put(itemId, timestampMs, null);
      return;
    }
    const features = { ...item, category: this.#shared(item.category), sellingItemIds: NOTHING_ON_SALE };
    this.#items.put(itemId, item.validFromMs, rankerItem(itemId, features));
  }

  #shared(text: string): string {
    const known = this.#categories.get(text);
    if (known === undefined) this.#categories.set(text, text);
    return known ?? text;
  }

  /**
   * @param key liveId:codebookVersion
   * @param timestampMs of the record: a tombstone says that the room closed, which its rollouts may outlive
   */
  putRoom(key: string, room: LiveSid | null, timestampMs: number): void {
    const colon = key.lastIndexOf(':');
    const liveId = key.slice(0, colon);
    const version = Number(key.slice(colon + 1));
    let rooms = this.#rooms.get(version);
    if (!rooms) {
      rooms = new AsOfTable<string[]>();
      this.#rooms.set(version, rooms);
      this.#versions = [...this.#rooms.keys()].sort((a, b) => b - a);
    }
    if (room === null) rooms.put(liveId, timestampMs, null);
    else rooms.put(liveId, room.validFromMs, room.sellingItemIds);
  }

  /**
   * What was valid then; of an item that is younger than the request its newest version, for it can be retrieved now. null where it is unknown or gone.
   */
  asOf(itemId: string, timeMs: number): RankerItem | null {
    const own = this.#items.asOf(itemId, timeMs) ?? this.#items.newest(itemId);
    if (!own) return null;
    const sellingItemIds = this.#selling(itemId, timeMs);
    return sellingItemIds.length === 0 ? own : { ...own, sellingItemIds };
  }

  #selling(liveId: string, timeMs: number): string[] {
    for (const version of this.#versions) {
      const selling = this.#rooms.get(version)!.asOf(liveId, timeMs);
      if (selling) return selling;
    }
    return NOTHING_ON_SALE;
  }

  /** Drops versions that no rollout at or after timeMs sees. */
  forgetBefore(timeMs: number): void {
    this.#items.forgetBefore(timeMs);
    this.#categories.clear(); // they are shared from here on again
    for (const rooms of this.#rooms.values()) rooms.forgetBefore(timeMs);
  }

  get numItems(): number {
    return this.#items.size;
  }
}
