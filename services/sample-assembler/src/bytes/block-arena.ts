/**
 * Blocks of bytes in slabs, outside the garbage collector's sight. Sizes are rounded up to classes; a slab holds blocks
 * of one class and goes back when its last block is freed, so memory stays flat while content comes and goes.
 *
 * An address is a count of 16 bytes: the slab's number above 12 bits of place within it.
 */
import { copyBytes } from './hash.ts';
import type { Sections } from './sections.ts';

const SLAB_BYTES = 1 << 16;
const PLACE_BITS = 12;
const PLACE_MASK = (1 << PLACE_BITS) - 1;
const GRAIN_BITS = 4;
/** Larger blocks have a slab of their own. */
const LARGEST_SHARED = SLAB_BYTES / 4;
const FINE_CLASSES = 64;
const NONE = -1;
/** Of a snapshot: so many slabs lie in one file, and stay in memory together when it is read. */
const SLABS_PER_FILE = 64;
const INDEX_NUMBERS = 6;

/** Slabs that were given back, of any arena of this process: new ones would cost the collector and the kernel's pages. */
const spares: Uint8Array[] = [];
const MAX_SPARES = 128;

const classBytes: number[] = [];
for (let i = 1; i <= FINE_CLASSES; i++) classBytes.push(i << GRAIN_BITS);
while (classBytes.at(-1)! < LARGEST_SHARED)
  classBytes.push(Math.min(LARGEST_SHARED, ((classBytes.at(-1)! * 5) >> 6) << GRAIN_BITS));

function classOf(length: number): number {
  if (length <= FINE_CLASSES << GRAIN_BITS) return length === 0 ? 0 : (length - 1) >> GRAIN_BITS;
  let found = FINE_CLASSES;
  while (classBytes[found]! < length) found++;
  return found;
}

interface Slab {
  bytes: Uint8Array;
  /** -1 for a slab of one large block. */
  sizeClass: number;
  numLive: number;
  /** Where blocks were never given out. */
  freshAt: number;
  /** First freed block; each holds the place of the next in its first 4 bytes. */
  freeAt: number;
  /** Whether its class knows that it has room. */
  isOffered: boolean;
  /** Its bytes may not change: someone is writing them away. */
  isFrozen: boolean;
}

export class BlockArena {
  /** By number. Read a block's bytes as `slabs[address >>> 12].bytes` from `placeOf(address)` on. */
  readonly #slabs: (Slab | undefined)[] = [];
  readonly #unusedNumbers: number[] = [];
  /** Slabs with room, by class; the last is the one in use. */
  readonly #withRoom: number[][] = classBytes.map(() => []);
  /** Blocks of frozen slabs that are free as soon as those thaw. */
  readonly #freedWhileFrozen: number[] = [];
  #sizeBytes = 0;
  #usedBytes = 0;

  /** Of all slabs. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }
  /** Of the blocks that are given out. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  bytesAt(address: number): Uint8Array {
    return this.#slabs[address >>> PLACE_BITS]!.bytes;
  }
  placeOf(address: number): number {
    return (address & PLACE_MASK) << GRAIN_BITS;
  }

  /** What a block of this length may grow to in place. */
  static capacityFor(length: number): number {
    return length > LARGEST_SHARED ? length : classBytes[classOf(length)]!;
  }

  allocate(length: number): number {
    if (length > LARGEST_SHARED) {
      const number = this.#addSlab(length, NONE);
      this.#slabs[number]!.numLive = 1;
      this.#usedBytes += length;
      return number << PLACE_BITS;
    }
    const sizeClass = classOf(length);
    const withRoom = this.#withRoom[sizeClass]!;
    let number = withRoom.at(-1);
    if (number === undefined) {
      number = this.#addSlab(SLAB_BYTES, sizeClass);
      withRoom.push(number);
    }
    const slab = this.#slabs[number]!;
    if (slab.isFrozen) leaveFrozen(slab);
    let place = slab.freeAt;
    if (place >= 0) slab.freeAt = readInt32(slab.bytes, place);
    else {
      place = slab.freshAt;
      slab.freshAt += classBytes[sizeClass]!;
    }
    slab.numLive++;
    this.#usedBytes += classBytes[sizeClass]!;
    if (slab.freeAt < 0 && slab.freshAt + classBytes[sizeClass]! > SLAB_BYTES) {
      withRoom.pop();
      slab.isOffered = false;
    }
    return (number << PLACE_BITS) | (place >> GRAIN_BITS);
  }

  /** A block with these bytes. */
  put(from: Uint8Array, start: number, length: number): number {
    const address = this.allocate(length);
    copyBytes(from, start, length, this.bytesAt(address), this.placeOf(address));
    return address;
  }

  free(address: number): void {
    const number = address >>> PLACE_BITS;
    const slab = this.#slabs[number]!;
    if (slab.isFrozen) {
      this.#freedWhileFrozen.push(address);
      return;
    }
    slab.numLive--;
    if (slab.sizeClass === NONE) {
      this.#usedBytes -= slab.bytes.length;
      this.#dropSlab(number);
      return;
    }
    this.#usedBytes -= classBytes[slab.sizeClass]!;
    const place = this.placeOf(address);
    writeInt32(slab.bytes, place, slab.freeAt);
    slab.freeAt = place;
    const withRoom = this.#withRoom[slab.sizeClass]!;
    if (!slab.isOffered) {
      // Before the one in use, so that allocation does not jump between slabs.
      withRoom.unshift(number);
      slab.isOffered = true;
    }
    if (slab.numLive === 0 && withRoom.at(-1) !== number) {
      withRoom.splice(withRoom.indexOf(number), 1);
      this.#dropSlab(number);
    }
  }

  /**
   * Until `thaw` no byte changes that `save` has named: a slab that takes a new block goes on as a copy, and blocks that are
   * freed in the others wait. New slabs in their place would be left with few blocks each, snapshot after snapshot.
   */
  freeze(): void {
    for (const slab of this.#slabs) if (slab) slab.isFrozen = true;
  }
  thaw(): void {
    for (const slab of this.#slabs) if (slab) slab.isFrozen = false;
    for (const address of this.#freedWhileFrozen.splice(0)) this.free(address);
  }

  /** @param name beginning with a capital: its slabs are files of the snapshot */
  save(name: string, into: Sections): void {
    const index: number[] = [];
    const bytes: Uint8Array[][] = [];
    this.#slabs.forEach((slab, number) => {
      if (!slab) return;
      index.push(number, slab.sizeClass, slab.numLive, slab.freshAt, slab.freeAt, slab.bytes.length);
      if (bytes.length * SLABS_PER_FILE * INDEX_NUMBERS < index.length) bytes.push([]);
      bytes.at(-1)!.push(slab.bytes);
    });
    into.put(`arena-${name}`, Int32Array.from(index));
    into.facts[`files-${name}`] = bytes.length;
    for (const [i, slabs] of bytes.entries()) into.put(`${name}-${i}`, ...slabs);
  }

  /** Into an arena that holds nothing yet. The slabs stay where they were read to. */
  load(name: string, from: Sections): void {
    const saved = Buffer.from(from.get(`arena-${name}`));
    const at = (i: number): number => saved.readInt32LE(i * 4);
    const numSlabs = saved.length / 4 / INDEX_NUMBERS;
    if (from.fact<number>(`files-${name}`) !== Math.ceil(numSlabs / SLABS_PER_FILE))
      throw new Error('The snapshot has another number of slabs than its index says');
    let file: Uint8Array = saved;
    let place = 0;
    for (let i = 0; i < numSlabs; i++) {
      if (i % SLABS_PER_FILE === 0) {
        file = from.get(`${name}-${i / SLABS_PER_FILE}`);
        place = 0;
      }
      const row = i * INDEX_NUMBERS;
      const [number, sizeClass, length] = [at(row), at(row + 1), at(row + 5)];
      const slab: Slab = {
        bytes: file.subarray(place, place + length),
        sizeClass,
        numLive: at(row + 2),
        freshAt: at(row + 3),
        freeAt: at(row + 4),
        isOffered: false,
        isFrozen: false,
      };
      if (slab.bytes.length !== length) throw new Error(`Slab ${number} of the snapshot is cut off`);
      place += length;
      this.#slabs[number] = slab;
      this.#sizeBytes += length;
      this.#usedBytes += sizeClass === NONE ? length : slab.numLive * classBytes[sizeClass]!;
      if (sizeClass === NONE) continue;
      slab.isOffered = slab.freeAt >= 0 || slab.freshAt + classBytes[sizeClass]! <= SLAB_BYTES;
      if (slab.isOffered) this.#withRoom[sizeClass]!.push(number);
    }
    for (let number = 0; number < this.#slabs.length; number++)
      if (!this.#slabs[number]) this.#unusedNumbers.push(number);
  }

  #addSlab(sizeBytes: number, sizeClass: number): number {
    const number = this.#unusedNumbers.pop() ?? this.#slabs.length;
    this.#slabs[number] = {
      // No Buffer: a view of one costs several times as much.
      bytes: (sizeBytes === SLAB_BYTES ? spares.pop() : undefined) ?? new Uint8Array(sizeBytes),
      sizeClass,
      numLive: 0,
      freshAt: 0,
      freeAt: NONE,
      isOffered: sizeClass !== NONE,
      isFrozen: false,
    };
    this.#sizeBytes += sizeBytes;
    return number;
  }

  #dropSlab(number: number): void {
    const { bytes } = this.#slabs[number]!;
    this.#sizeBytes -= bytes.length;
    // Not a part of a file that was read, which would keep the whole file and may be shorter.
    const isOwn = bytes.length === SLAB_BYTES && bytes.buffer.byteLength === SLAB_BYTES;
    if (isOwn && spares.length < MAX_SPARES) spares.push(bytes);
    this.#slabs[number] = undefined;
    this.#unusedNumbers.push(number);
  }
}

export function readInt32(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}
export function writeInt32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** The bytes as they were belong to whoever writes them away. */
function leaveFrozen(slab: Slab): void {
  const own = spares.pop() ?? new Uint8Array(SLAB_BYTES);
  own.set(slab.bytes);
  slab.bytes = own;
  slab.isFrozen = false;
}
