/**
 * Items, item SIDs and live SIDs by key and time, as read from their compacted topics: what was valid when a page was
 * requested.
 */
import type { Item, ItemSid, LiveSid, Sid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';

export interface ItemFacts {
  category: string;
  tags: string[];
  priceCents: number;
  sellerId: string;
  validFromMs: number;
}

/** What the join asks about items. */
export interface CatalogueView {
  item(itemId: string, asOfMs: number): ItemFacts | null;
  /** The SID of an item or live room. */
  sid(itemId: string, asOfMs: number): Sid | null;
  /** Products on sale in a live room; empty for anything else. */
  sellingItemIds(liveId: string, asOfMs: number): string[];
}

/** Versions of one kind of SID record by id and codebook version. */
class SidVersions<V> {
  readonly #byCodebook = new Map<number, AsOfTable<V>>();
  /** Descending. */
  #codebookVersions: number[] = [];

  put(id: string, codebookVersion: number, validFromMs: number, value: V): void {
    let table = this.#byCodebook.get(codebookVersion);
    if (!table) {
      table = new AsOfTable<V>();
      this.#byCodebook.set(codebookVersion, table);
      this.#codebookVersions = [...this.#byCodebook.keys()].sort((a, b) => b - a);
    }
    table.put(id, validFromMs, value);
  }

  /** The id has no value from then on; what was valid before stays so for pages shown before. */
  end(id: string, codebookVersion: number, endMs: number): void {
    this.#byCodebook.get(codebookVersion)?.put(id, endMs, null);
  }

  /** The first answer that `of` gives in the newest codebook version that has one. */
  newest<R>(id: string, asOfMs: number, of: (value: V) => R | null): R | null {
    for (const version of this.#codebookVersions) {
      const value = this.#byCodebook.get(version)!.asOf(id, asOfMs);
      const answer = value === null ? null : of(value);
      if (answer !== null) return answer;
    }
    return null;
  }

  forgetBefore(timeMs: number): void {
    for (const table of this.#byCodebook.values()) table.forgetBefore(timeMs);
  }
}

/**
 * Before when catalogue versions may be forgotten; null where nothing may, because a partition has not said yet.
 * @param neededFromMs of each partition
 * @param keepMs kept beyond that, for pages requested long before they were seen and for partitions that stood still
 *   elsewhere and come here
 */
export function forgettableBeforeMs(neededFromMs: readonly (number | null)[], keepMs: number): number | null {
  const known = neededFromMs.filter((ms) => ms !== null);
  return known.length === 0 || known.length < neededFromMs.length ? null : Math.min(...known) - keepMs;
}

interface LiveState {
  sid: Sid | null;
  sellingItemIds: string[];
}

/** Splits `itemId:codebookVersion`; ids may hold colons themselves. */
export function splitSidKey(key: string): { id: string; codebookVersion: number } {
  const at = key.lastIndexOf(':');
  return { id: key.slice(0, at), codebookVersion: Number(key.slice(at + 1)) };
}

export class Catalogue implements CatalogueView {
  readonly #items = new AsOfTable<ItemFacts>();
  readonly #itemSids = new SidVersions<Sid>();
  readonly #liveSids = new SidVersions<LiveState>();

  /** @param timestampMs of the record: a tombstone ends the item from then on */
  putItem(itemId: string, item: Item | null, timestampMs: number): void {
    if (item === null) {
      this.#items.put(itemId, timestampMs, null);
      return;
    }
    const { category, tags, priceCents, sellerId, validFromMs } = item;
    this.#items.put(itemId, validFromMs, { category, tags, priceCents, sellerId, validFromMs });
  }

  /** @param timestampMs of the record: a tombstone says that the item is gone, which its exposures may outlive */
  putItemSid(key: string, record: ItemSid | null, timestampMs: number): void {
    const { id, codebookVersion } = splitSidKey(key);
    if (record === null) this.#itemSids.end(id, codebookVersion, timestampMs);
    else this.#itemSids.put(id, codebookVersion, record.validFromMs, record.sid);
  }

  /** @param timestampMs of the record: a tombstone says that the room closed, which its exposures may outlive */
  putLiveSid(key: string, record: LiveSid | null, timestampMs: number): void {
    const { id, codebookVersion } = splitSidKey(key);
    if (record === null) this.#liveSids.end(id, codebookVersion, timestampMs);
    else
      this.#liveSids.put(id, codebookVersion, record.validFromMs, {
        sid: record.sid,
        sellingItemIds: record.sellingItemIds,
      });
  }

  item(itemId: string, asOfMs: number): ItemFacts | null {
    return this.#items.asOf(itemId, asOfMs);
  }

  sid(itemId: string, asOfMs: number): Sid | null {
    return (
      this.#itemSids.newest(itemId, asOfMs, (sid) => sid) ??
      this.#liveSids.newest(itemId, asOfMs, (live) => live.sid)
    );
  }

  sellingItemIds(liveId: string, asOfMs: number): string[] {
    return this.#liveSids.newest(liveId, asOfMs, (live) => live.sellingItemIds) ?? [];
  }

  /** Drops versions that no look-up at or after timeMs sees. */
  forgetBefore(timeMs: number): void {
    this.#items.forgetBefore(timeMs);
    this.#itemSids.forgetBefore(timeMs);
    this.#liveSids.forgetBefore(timeMs);
  }
}
