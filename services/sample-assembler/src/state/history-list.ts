/**
 * The events of one kind of one user as one block of bytes: entries in the order in which they came, and from the
 * block's end backwards where each begins, ascending by (time, id). An event out of order moves only that index.
 *
 * Block:  count (4) | bytes used (4) | count at which pruning is worth a look (4) | free (4) | entries ... | index
 * Entry:  time (6) | hash of the item (4) | lengths of id, other and item (2 each) | id | other | item
 * `other` is the request of an exposure, or the exposure of an action (empty where it names none).
 */
import { BlockArena as Arena, type BlockArena, readInt32, writeInt32 } from '../bytes/block-arena.ts';
import { compareBytes, copyBytes } from '../bytes/hash.ts';

export const NO_LIST = -1;
const HEADER_BYTES = 16;
const AT = { count: 0, used: 4, pruneAt: 8 } as const;
const ENTRY = { itemHash: 6, idLength: 10, otherLength: 12, itemLength: 14, id: 16 } as const;
const FIRST_BYTES = 128;
/** That an unpacked list has beside an eighth of its own: it is mostly unpacked because an event came. */
const ROOM_BYTES = 128;
const TWO_32 = 4_294_967_296;

/** One event on its way into a list. */
export interface NewEntry {
  timeMs: number;
  bytes: Uint8Array;
  idAt: number;
  idLength: number;
  otherAt: number;
  otherLength: number;
  itemAt: number;
  itemLength: number;
  itemHash: number;
}

/** Reads and changes lists; after `open` the fields tell of that list. */
export class HistoryLists {
  readonly #arena: BlockArena;
  bytes: Uint8Array = new Uint8Array(0);
  count = 0;
  #base = 0;
  /** Where the index begins, backwards. */
  #end = 0;
  #used = 0;

  constructor(arena: BlockArena) {
    this.#arena = arena;
  }

  open(list: number): void {
    if (list === NO_LIST) {
      this.count = 0;
      return;
    }
    this.bytes = this.#arena.bytesAt(list);
    this.#base = this.#arena.placeOf(list);
    this.count = readInt32(this.bytes, this.#base + AT.count);
    this.#used = readInt32(this.bytes, this.#base + AT.used);
    this.#end = this.#base + readInt32(this.bytes, this.#base + 12);
  }

  /** Where entry i of the open list begins in `bytes`. */
  entry(i: number): number {
    return this.#base + readInt32(this.bytes, this.#end - 4 * (i + 1));
  }
  timeMs(entry: number): number {
    const { bytes } = this;
    return (readInt32(bytes, entry) >>> 0) + (bytes[entry + 4]! | (bytes[entry + 5]! << 8)) * TWO_32;
  }
  itemHash(entry: number): number {
    return readInt32(this.bytes, entry + ENTRY.itemHash);
  }
  idLength(entry: number): number {
    return this.#length(entry + ENTRY.idLength);
  }
  otherLength(entry: number): number {
    return this.#length(entry + ENTRY.otherLength);
  }
  itemLength(entry: number): number {
    return this.#length(entry + ENTRY.itemLength);
  }
  idAt(entry: number): number {
    return entry + ENTRY.id;
  }
  otherAt(entry: number): number {
    return entry + ENTRY.id + this.idLength(entry);
  }
  itemAt(entry: number): number {
    return this.otherAt(entry) + this.otherLength(entry);
  }
  #length(at: number): number {
    return this.bytes[at]! | (this.bytes[at + 1]! << 8);
  }

  /** How many entries of the open list have timeMs < beforeMs. */
  countBefore(beforeMs: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.timeMs(this.entry(middle)) < beforeMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Adds an event unless it is there. @returns the list, which may have moved; `wasAdded` tells whether it grew */
  add(list: number, entry: NewEntry): number {
    const length = ENTRY.id + entry.idLength + entry.otherLength + entry.itemLength;
    let to = list;
    if (to === NO_LIST) to = this.#newList(length + 4, 0);
    this.open(to);
    let position = this.count;
    let order = 1;
    while (position > 0) {
      order = this.#compare(this.entry(position - 1), entry);
      if (order <= 0) break;
      position--;
    }
    this.wasAdded = !(position > 0 && order === 0);
    if (!this.wasAdded) return to;
    to = this.#makeRoom(to, length + 4);
    const { bytes } = this;
    const at = this.#base + this.#used;
    writeTime(bytes, at, entry.timeMs);
    writeInt32(bytes, at + ENTRY.itemHash, entry.itemHash);
    writeLength(bytes, at + ENTRY.idLength, entry.idLength);
    writeLength(bytes, at + ENTRY.otherLength, entry.otherLength);
    writeLength(bytes, at + ENTRY.itemLength, entry.itemLength);
    let place = at + ENTRY.id;
    copyBytes(entry.bytes, entry.idAt, entry.idLength, bytes, place);
    place += entry.idLength;
    copyBytes(entry.bytes, entry.otherAt, entry.otherLength, bytes, place);
    place += entry.otherLength;
    copyBytes(entry.bytes, entry.itemAt, entry.itemLength, bytes, place);
    const from = this.#end - 4 * this.count;
    if (position < this.count) bytes.copyWithin(from - 4, from, this.#end - 4 * position);
    writeInt32(bytes, this.#end - 4 * (position + 1), this.#used);
    this.#setUsed(this.#used + length);
    this.#setCount(this.count + 1);
    return to;
  }
  wasAdded = false;

  /** When the open list has grown to this count, `prune` is worth a look. */
  get pruneAtCount(): number {
    return readInt32(this.bytes, this.#base + AT.pruneAt);
  }

  /** Drops all but the last `keep` entries of the open list. @returns the list, which may have moved */
  prune(list: number, keep: number, nextPruneAtCount: number): number {
    const drop = Math.max(0, this.count - keep);
    const to = drop > 0 ? this.#copied(list, drop, 0) : list;
    writeInt32(this.bytes, this.#base + AT.pruneAt, nextPruneAtCount);
    return to;
  }

  /** Writes an action's exposure into its entry, if that is still there. @returns the list, which may have moved */
  setOther(
    list: number,
    timeMs: number,
    from: Uint8Array,
    idAt: number,
    idLength: number,
    otherAt: number,
    otherLength: number,
  ): number {
    this.open(list);
    for (let i = this.countBefore(timeMs); i < this.count; i++) {
      const old = this.entry(i);
      if (this.timeMs(old) !== timeMs) break;
      if (compareBytes(this.bytes, this.idAt(old), this.idLength(old), from, idAt, idLength) !== 0) continue;
      const itemLength = this.itemLength(old);
      const length = ENTRY.id + idLength + otherLength + itemLength;
      const to = this.#makeRoom(list, length);
      const { bytes } = this;
      const source = this.entry(i);
      const at = this.#base + this.#used;
      bytes.copyWithin(at, source, source + ENTRY.id + idLength);
      writeLength(bytes, at + ENTRY.otherLength, otherLength);
      copyBytes(from, otherAt, otherLength, bytes, at + ENTRY.id + idLength);
      const item = this.itemAt(source);
      bytes.copyWithin(at + ENTRY.id + idLength + otherLength, item, item + itemLength);
      writeInt32(bytes, this.#end - 4 * (i + 1), this.#used);
      this.#setUsed(this.#used + length);
      return to;
    }
    return list;
  }

  /** Bytes of the list when packed; 0 for none. */
  packedBytes(list: number): number {
    if (list === NO_LIST) return 0;
    this.open(list);
    return this.#used + 4 * this.count;
  }

  /** Writes the list that `packedBytes` told of, without the room that it has to grow. */
  packInto(to: Uint8Array, at: number): void {
    const { bytes } = this;
    to.set(bytes.subarray(this.#base, this.#base + this.#used), at);
    to.set(bytes.subarray(this.#end - 4 * this.count, this.#end), at + this.#used);
  }

  /** A list out of packed bytes, with room for some more events. */
  unpack(from: Uint8Array, at: number, length: number): number {
    if (length === 0) return NO_LIST;
    const list = this.#newList(length - HEADER_BYTES, (length >> 3) + ROOM_BYTES);
    this.open(list);
    const indexBytes = 4 * readInt32(from, at + AT.count);
    const used = length - indexBytes;
    this.bytes.set(from.subarray(at + HEADER_BYTES, at + used), this.#base + HEADER_BYTES);
    this.bytes.set(from.subarray(at + used, at + length), this.#end - indexBytes);
    this.#setUsed(used);
    this.#setCount(indexBytes / 4);
    writeInt32(this.bytes, this.#base + AT.pruneAt, readInt32(from, at + AT.pruneAt));
    return list;
  }

  free(list: number): void {
    if (list !== NO_LIST) this.#arena.free(list);
  }

  #compare(entry: number, other: NewEntry): number {
    const timeMs = this.timeMs(entry);
    if (timeMs !== other.timeMs) return timeMs - other.timeMs;
    return compareBytes(
      this.bytes,
      this.idAt(entry),
      this.idLength(entry),
      other.bytes,
      other.idAt,
      other.idLength,
    );
  }

  #makeRoom(list: number, length: number): number {
    if (this.#base + this.#used + length <= this.#end - 4 * this.count) return list;
    return this.#copied(list, 0, length);
  }

  /** The open list without its first `drop` entries in a new block with room for more; the old one is freed. */
  #copied(list: number, drop: number, extra: number): number {
    const { bytes: from, count } = this;
    const [base, end, used, pruneAt] = [this.#base, this.#end, this.#used, this.pruneAtCount];
    let needed = used - HEADER_BYTES + 4 * count;
    if (drop > 0) {
      needed = 0;
      for (let i = drop; i < count; i++) needed += entryBytes(from, this.entry(i)) + 4;
    }
    const to = this.#newList(needed + extra, (needed + extra) >> 2);
    this.open(to);
    const { bytes } = this;
    if (drop === 0) {
      copyBytes(from, base + HEADER_BYTES, used - HEADER_BYTES, bytes, this.#base + HEADER_BYTES);
      copyBytes(from, end - 4 * count, 4 * count, bytes, this.#end - 4 * count);
      this.#setUsed(used);
    } else this.#copyEntries(from, base, end, drop, count);
    this.#setCount(count - drop);
    writeInt32(bytes, this.#base + AT.pruneAt, pruneAt);
    this.#arena.free(list);
    return to;
  }

  /** Entries from `first` on of another list, one after the other: what lay between them stays behind. */
  #copyEntries(from: Uint8Array, base: number, end: number, first: number, count: number): void {
    const { bytes } = this;
    let used = HEADER_BYTES;
    for (let i = first; i < count; i++) {
      const at = base + readInt32(from, end - 4 * (i + 1));
      const length = entryBytes(from, at);
      copyBytes(from, at, length, bytes, this.#base + used);
      writeInt32(bytes, this.#end - 4 * (i - first + 1), used);
      used += length;
    }
    this.#setUsed(used);
  }

  #newList(contentBytes: number, extra: number): number {
    const length = Math.max(FIRST_BYTES, HEADER_BYTES + contentBytes + extra);
    const capacity = Arena.capacityFor(length);
    const list = this.#arena.allocate(capacity);
    const bytes = this.#arena.bytesAt(list);
    const base = this.#arena.placeOf(list);
    writeInt32(bytes, base + AT.count, 0);
    writeInt32(bytes, base + AT.used, HEADER_BYTES);
    writeInt32(bytes, base + AT.pruneAt, 0);
    writeInt32(bytes, base + 12, capacity);
    return list;
  }

  #setCount(count: number): void {
    this.count = count;
    writeInt32(this.bytes, this.#base + AT.count, count);
  }
  #setUsed(used: number): void {
    this.#used = used;
    writeInt32(this.bytes, this.#base + AT.used, used);
  }
}

function entryBytes(bytes: Uint8Array, entry: number): number {
  const length = (at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
  return (
    ENTRY.id +
    length(entry + ENTRY.idLength) +
    length(entry + ENTRY.otherLength) +
    length(entry + ENTRY.itemLength)
  );
}

function writeTime(bytes: Uint8Array, at: number, timeMs: number): void {
  const high = Math.floor(timeMs / TWO_32);
  writeInt32(bytes, at, (timeMs - high * TWO_32) | 0);
  bytes[at + 4] = high;
  bytes[at + 5] = high >>> 8;
}

function writeLength(bytes: Uint8Array, at: number, length: number): void {
  bytes[at] = length;
  bytes[at + 1] = length >>> 8;
}
