/**
 * Items, item SIDs and live SIDs by key and time, as read from their compacted topics: what was valid when a page was
 * requested.
 */
import type { Item, ItemSid, LiveSid, Sid } from '@onemall/contracts';
import { AsOfTable } from '@onemall/event-time';
import { AvroWriter } from '../bytes/avro.ts';
import { equalBytes, hashBytes } from '../bytes/hash.ts';
import { SlotTable } from '../bytes/slot-table.ts';

export interface ItemFacts {
  category: string;
  tags: string[];
  priceCents: number;
  sellerId: string;
  validFromMs: number;
}

/** The facts of a version as they stand in a sample. */
export interface FactsBytes extends ItemFacts {
  /** Avro bytes of category, tags, priceCents and sellerId. */
  bytesBeforeSelling: Uint8Array;
  /** The first of these. */
  categoryBytes: Uint8Array;
}

/** What the join asks about items. */
export interface CatalogueBytes {
  /** Number of the item or live room with this id, or -1. */
  find(bytes: Uint8Array, at: number, length: number, hash: number): number;
  facts(item: number, asOfMs: number): FactsBytes | null;
  /** Avro bytes of the SID. */
  sidBytes(item: number, asOfMs: number): Uint8Array | null;
  /** Avro bytes of the products on sale in a live room; of an empty list for anything else. */
  sellingBytes(item: number, asOfMs: number): Uint8Array;
}

/** Versions of one kind of SID record by id and codebook version. */
class SidVersions<V> {
  readonly #byCodebook = new Map<number, AsOfTable<V, number>>();
  /** Descending. */
  #codebookVersions: number[] = [];

  put(id: number, codebookVersion: number, validFromMs: number, value: V): void {
    let table = this.#byCodebook.get(codebookVersion);
    if (!table) {
      table = new AsOfTable<V, number>();
      this.#byCodebook.set(codebookVersion, table);
      this.#codebookVersions = [...this.#byCodebook.keys()].sort((a, b) => b - a);
    }
    table.put(id, validFromMs, value);
  }

  /** The id has no value from then on; what was valid before stays so for pages shown before. */
  end(id: number, codebookVersion: number, endMs: number): void {
    this.#byCodebook.get(codebookVersion)?.put(id, endMs, null);
  }

  /** The first answer that `of` gives in the newest codebook version that has one. */
  newest<R>(id: number, asOfMs: number, of: (value: V) => R | null): R | null {
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

interface SidState {
  sid: Sid | null;
  sidBytes: Uint8Array | null;
}
interface LiveState extends SidState {
  sellingItemIds: string[];
  sellingBytes: Uint8Array;
}

/** Splits `itemId:codebookVersion`; ids may hold colons themselves. */
export function splitSidKey(key: string): { id: string; codebookVersion: number } {
  const at = key.lastIndexOf(':');
  return { id: key.slice(0, at), codebookVersion: Number(key.slice(at + 1)) };
}

/** Numbers for ids, given once and kept. */
class ItemNumbers {
  readonly #ids: Uint8Array[] = [];
  readonly #table = new SlotTable();

  find(bytes: Uint8Array, at: number, length: number, hash: number): number {
    const table = this.#table;
    for (let i = table.first(hash); table.slots[i]! >= 0; i = table.next(i)) {
      if (table.hashes[i] !== hash) continue;
      const id = this.#ids[table.slots[i]!]!;
      if (id.length === length && equalBytes(id, 0, bytes, at, length)) return table.slots[i]!;
    }
    return -1;
  }
  known(id: string): number {
    const bytes = Buffer.from(id);
    return this.find(bytes, 0, bytes.length, hashBytes(bytes, 0, bytes.length));
  }
  of(id: string): number {
    const bytes = Buffer.from(id);
    const hash = hashBytes(bytes, 0, bytes.length);
    const known = this.find(bytes, 0, bytes.length, hash);
    if (known >= 0) return known;
    this.#table.add(hash, this.#ids.length);
    this.#ids.push(Uint8Array.from(bytes));
    return this.#ids.length - 1;
  }
}

export class Catalogue implements CatalogueBytes {
  readonly #numbers = new ItemNumbers();
  readonly #items = new AsOfTable<FactsBytes, number>();
  readonly #itemSids = new SidVersions<SidState>();
  readonly #liveSids = new SidVersions<LiveState>();

  /** @param timestampMs of the record: a tombstone ends the item from then on */
  putItem(itemId: string, item: Item | null, timestampMs: number): void {
    const number = this.#numbers.of(itemId);
    if (item === null) this.#items.put(number, timestampMs, null);
    else this.#items.put(number, item.validFromMs, factsBytes(item));
  }

  /** @param timestampMs of the record: a tombstone says that the item is gone, which its exposures may outlive */
  putItemSid(key: string, record: ItemSid | null, timestampMs: number): void {
    const { id, codebookVersion } = splitSidKey(key);
    const number = this.#numbers.of(id);
    if (record === null) this.#itemSids.end(number, codebookVersion, timestampMs);
    else
      this.#itemSids.put(number, codebookVersion, record.validFromMs, {
        sid: record.sid,
        sidBytes: sidBytes(record.sid),
      });
  }

  /** @param timestampMs of the record: a tombstone says that the room closed, which its exposures may outlive */
  putLiveSid(key: string, record: LiveSid | null, timestampMs: number): void {
    const { id, codebookVersion } = splitSidKey(key);
    const number = this.#numbers.of(id);
    if (record === null) this.#liveSids.end(number, codebookVersion, timestampMs);
    else
      this.#liveSids.put(number, codebookVersion, record.validFromMs, {
        sid: record.sid,
        sidBytes: record.sid && sidBytes(record.sid),
        sellingItemIds: record.sellingItemIds,
        sellingBytes: listBytes(record.sellingItemIds),
      });
  }

  find(bytes: Uint8Array, at: number, length: number, hash: number): number {
    return this.#numbers.find(bytes, at, length, hash);
  }
  facts(item: number, asOfMs: number): FactsBytes | null {
    return this.#items.asOf(item, asOfMs);
  }
  sidBytes(item: number, asOfMs: number): Uint8Array | null {
    return this.#newestSid(item, asOfMs, bytesOfSid);
  }
  sellingBytes(item: number, asOfMs: number): Uint8Array {
    return this.#liveSids.newest(item, asOfMs, bytesOfSelling) ?? EMPTY_LIST;
  }

  item(itemId: string, asOfMs: number): ItemFacts | null {
    const facts = this.facts(this.#numbers.known(itemId), asOfMs);
    if (facts === null) return null;
    const { category, tags, priceCents, sellerId, validFromMs } = facts;
    return { category, tags, priceCents, sellerId, validFromMs };
  }
  sid(itemId: string, asOfMs: number): Sid | null {
    return this.#newestSid(this.#numbers.known(itemId), asOfMs, (state) => state.sid);
  }
  sellingItemIds(liveId: string, asOfMs: number): string[] {
    return this.#liveSids.newest(this.#numbers.known(liveId), asOfMs, (live) => live.sellingItemIds) ?? [];
  }

  #newestSid<R>(item: number, asOfMs: number, of: (state: SidState) => R | null): R | null {
    return this.#itemSids.newest(item, asOfMs, of) ?? this.#liveSids.newest(item, asOfMs, of);
  }

  /** Drops versions that no look-up at or after timeMs sees. */
  forgetBefore(timeMs: number): void {
    this.#items.forgetBefore(timeMs);
    this.#itemSids.forgetBefore(timeMs);
    this.#liveSids.forgetBefore(timeMs);
  }
}

const bytesOfSid = (state: SidState): Uint8Array | null => state.sidBytes;
const bytesOfSelling = (live: LiveState): Uint8Array => live.sellingBytes;

function factsBytes({ category, tags, priceCents, sellerId, validFromMs }: Item): FactsBytes {
  const bytesBeforeSelling = written((writer) => {
    writeText(writer, category);
    writeList(writer, tags);
    writer.long(priceCents);
    writeText(writer, sellerId);
  });
  const categoryBytes = written((writer) => writeText(writer, category));
  return { category, tags, priceCents, sellerId, validFromMs, bytesBeforeSelling, categoryBytes };
}

const sidBytes = ({ scenario, codebookVersion, c1, c2, c3 }: Sid): Uint8Array =>
  written((writer) => {
    writeText(writer, scenario);
    for (const number of [codebookVersion, c1, c2, c3]) writer.long(number);
  });
const listBytes = (texts: readonly string[]): Uint8Array => written((writer) => writeList(writer, texts));

function written(write: (writer: AvroWriter) => void): Uint8Array {
  const writer = new AvroWriter(64);
  write(writer);
  return Uint8Array.from(writer.bytes.subarray(0, writer.at));
}
function writeText(writer: AvroWriter, text: string): void {
  const bytes = Buffer.from(text);
  writer.reserve(bytes.length + 20);
  writer.string(bytes, 0, bytes.length);
  writer.reserve(20);
}
function writeList(writer: AvroWriter, texts: readonly string[]): void {
  if (texts.length > 0) writer.long(texts.length);
  for (const text of texts) writeText(writer, text);
  writer.reserve(20);
  writer.byte(0);
}
const EMPTY_LIST = Uint8Array.of(0);
