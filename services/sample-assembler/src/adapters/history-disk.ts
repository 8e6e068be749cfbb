/**
 * Cold histories in files of a folder: records are gathered in memory to a segment, which is written at once and never
 * changed. Segments of which little is alive are written anew together, so that at most about half of the disk is dead.
 *
 * A file has no name any more once it is open: whatever ends the process, the system takes back its space.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import { readInt32, writeInt32 } from '../bytes/block-arena.ts';
import { type ColdHistories, ColdHistoriesError, type ColdOwners } from '../state/cold-histories.ts';

const SEGMENT_BYTES = 8 << 20;
/** Before each record: CRC-32 of all that follows, owner, length. */
const HEADER_BYTES = 12;
const OWNER_AT = 4;
const LENGTH_AT = 8;
/** A position is the segment's number times this, and the place in it. */
const NUMBER_FACTOR = 2 ** 32;
/** So many segments may be dead beside as many bytes as are alive. */
const SPARE_SEGMENTS = 2;
/** A snapshot writes what was gathered, however little. So many segments of less than that share are written anew together. */
const MANY_SMALL = 8;
const SMALL_SHARE = 1 / 8;

/** One that is written. */
export interface Segment {
  readonly number: number;
  readonly sizeBytes: number;
  liveBytes: number;
}
interface OpenSegment extends Segment {
  readonly file: number;
}

/** What a snapshot says of it, beside the segments' bytes. */
export interface SavedHistories {
  nextNumber: number;
  segments: { number: number; liveBytes: number }[];
}

export class HistoryDisk implements ColdHistories {
  readonly #folder: string;
  readonly #segmentBytes: number;
  readonly #segments = new Map<number, OpenSegment>();
  /** Dead ones that a snapshot is still to read; null while nobody writes one. */
  #heldBack: Map<number, OpenSegment> | null = null;
  #buffer: Buffer;
  #scratch = Buffer.alloc(0);
  /** Of the segment that is being gathered. */
  #number = 0;
  #at = 0;
  #bufferLive = 0;
  #sealedBytes = 0;
  #sealedLive = 0;
  #isCompacting = false;
  owners: ColdOwners = { positionOf: () => -1, moved: () => {} };

  /** @param segmentBytes larger records have a segment of their own */
  constructor(folder: string, segmentBytes = SEGMENT_BYTES) {
    this.#folder = folder;
    this.#segmentBytes = segmentBytes;
    this.#buffer = Buffer.alloc(0);
  }

  get sizeBytes(): number {
    return this.#sealedBytes;
  }
  /** Written ones, by number. */
  get segments(): readonly Segment[] {
    return [...this.#segments.values()];
  }

  put(owner: number, record: Uint8Array): number {
    const length = HEADER_BYTES + record.length;
    if (this.#at > 0 && this.#at + length > this.#segmentBytes) {
      this.seal();
      this.#compact();
    }
    if (this.#at + length > this.#buffer.length) this.#grow(this.#at + length);
    const at = this.#at;
    writeInt32(this.#buffer, at + OWNER_AT, owner);
    writeInt32(this.#buffer, at + LENGTH_AT, record.length);
    this.#buffer.set(record, at + HEADER_BYTES);
    writeInt32(this.#buffer, at, crc32(this.#buffer.subarray(at + OWNER_AT, at + length)));
    this.#at += length;
    this.#bufferLive += length;
    return this.#number * NUMBER_FACTOR + at;
  }

  read(position: number, sizeBytes: number): Uint8Array {
    const { number, at } = placeOf(position);
    const length = HEADER_BYTES + sizeBytes;
    if (number === this.#number) return this.#buffer.subarray(at + HEADER_BYTES, at + length);
    if (this.#scratch.length < length) this.#scratch = Buffer.allocUnsafeSlow(2 * length);
    this.#readFrom(this.#require(number), this.#scratch, length, at);
    this.#check(this.#scratch, 0, length);
    return this.#scratch.subarray(HEADER_BYTES, length);
  }

  free(position: number, sizeBytes: number): void {
    const { number } = placeOf(position);
    const length = HEADER_BYTES + sizeBytes;
    if (number === this.#number) {
      this.#bufferLive -= length;
      // Nothing of it is asked for any more: its bytes need not be written.
      if (this.#bufferLive === 0) this.#at = 0;
      return;
    }
    const segment = this.#require(number);
    segment.liveBytes -= length;
    this.#sealedLive -= length;
    if (segment.liveBytes === 0) this.#close(segment);
  }

  /** Writes what was gathered so far. @throws ColdHistoriesError; then nothing has changed */
  seal(): void {
    if (this.#at === 0) return;
    const file = this.#write(this.#buffer.subarray(0, this.#at));
    const segment = { number: this.#number, sizeBytes: this.#at, liveBytes: this.#bufferLive, file };
    this.#segments.set(segment.number, segment);
    this.#sealedBytes += segment.sizeBytes;
    this.#sealedLive += segment.liveBytes;
    this.#number++;
    this.#at = 0;
    this.#bufferLive = 0;
  }

  /**
   * Before a snapshot: its segments, which are open files here and artifacts there, stay few however many came before it.
   * @throws ColdHistoriesError; then some have moved
   */
  mergeSmall(): void {
    const small = [...this.#segments.values()].filter(
      ({ sizeBytes }) => sizeBytes < SMALL_SHARE * this.#segmentBytes,
    );
    if (small.length < MANY_SMALL) return;
    this.#isCompacting = true; // a segment that fills up on the way must not move those that are still to come
    try {
      for (const segment of small) this.#moveOut(segment);
    } finally {
      this.#isCompacting = false;
    }
  }

  /** Of a snapshot: seal first, then read each segment. They can be read until `release`, whatever happens meanwhile. */
  save(): SavedHistories {
    this.#heldBack ??= new Map();
    const segments = this.segments.map(({ number, liveBytes }) => ({ number, liveBytes }));
    return { nextNumber: this.#number, segments };
  }
  /** The snapshot is written. */
  release(): void {
    for (const { file } of this.#heldBack?.values() ?? []) closeSync(file);
    this.#heldBack = null;
  }
  segmentBytes(number: number): Buffer {
    const segment = this.#require(number);
    const bytes = Buffer.allocUnsafeSlow(segment.sizeBytes);
    this.#readFrom(segment, bytes, segment.sizeBytes, 0);
    for (let at = 0; at < bytes.length; ) at = this.#check(bytes, at, bytes.length);
    return bytes;
  }

  /** Puts a segment of a snapshot back; all of them before anything else, then `nextNumber`. */
  restore({ number, liveBytes }: { number: number; liveBytes: number }, bytes: Uint8Array): void {
    const segment = { number, sizeBytes: bytes.length, liveBytes, file: this.#write(bytes) };
    this.#segments.set(number, segment);
    this.#sealedBytes += segment.sizeBytes;
    this.#sealedLive += liveBytes;
  }
  goOnAt(nextNumber: number): void {
    this.#number = nextNumber;
  }

  /** Gives the disk back what it took. */
  close(): void {
    this.release();
    for (const segment of this.#segments.values()) this.#close(segment);
    this.#buffer = Buffer.alloc(0);
    this.#at = 0;
    this.#bufferLive = 0;
  }

  /** Moves what lives in the emptiest segments until no more is dead than alive. */
  #compact(): void {
    if (this.#isCompacting) return;
    this.#isCompacting = true;
    try {
      while (this.#sealedBytes > 2 * this.#sealedLive + SPARE_SEGMENTS * this.#segmentBytes) {
        let emptiest: OpenSegment | undefined;
        for (const segment of this.#segments.values())
          if (!emptiest || segment.liveBytes / segment.sizeBytes < emptiest.liveBytes / emptiest.sizeBytes)
            emptiest = segment;
        if (!emptiest) return;
        this.#moveOut(emptiest);
      }
    } catch (error) {
      // What was moved was moved whole; the rest is moved when the disk has room again.
      if (!(error instanceof ColdHistoriesError)) throw error;
    } finally {
      this.#isCompacting = false;
    }
  }

  #moveOut(segment: OpenSegment): void {
    const bytes = this.segmentBytes(segment.number);
    for (let at = 0; at < bytes.length; ) {
      const owner = readInt32(bytes, at + OWNER_AT);
      const length = readInt32(bytes, at + LENGTH_AT);
      const position = segment.number * NUMBER_FACTOR + at;
      if (this.owners.positionOf(owner) === position) {
        const moved = this.put(owner, bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length));
        this.owners.moved(owner, moved);
        this.free(position, length);
      }
      at += HEADER_BYTES + length;
    }
    if (this.#segments.has(segment.number))
      throw new Error(
        `Segment ${segment.number} of histories has ${segment.liveBytes} live bytes that nobody owns`,
      );
  }

  #require(number: number): OpenSegment {
    const segment = this.#segments.get(number) ?? this.#heldBack?.get(number);
    if (!segment) throw new Error(`There is no segment ${number} of histories on disk`);
    return segment;
  }

  #grow(needed: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#segmentBytes));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }

  #write(bytes: Uint8Array): number {
    let file: number | undefined;
    try {
      mkdirSync(this.#folder, { recursive: true });
      const name = path.join(this.#folder, `onemall-histories-${randomUUID()}`);
      file = openSync(name, 'wx+', 0o600);
      unlinkSync(name);
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at, bytes.length - at, at);
      return file;
    } catch (cause) {
      if (file !== undefined) closeSync(file);
      throw this.#error(`Writing ${bytes.length} bytes of user histories to`, cause);
    }
  }

  #readFrom(segment: OpenSegment, into: Buffer, length: number, start: number): void {
    for (let at = 0; at < length; ) {
      let count: number;
      try {
        count = readSync(segment.file, into, at, length - at, start + at);
      } catch (cause) {
        throw this.#error('Reading user histories from', cause);
      }
      if (count === 0)
        throw this.#error('Reading user histories from', new Error('the file ended too early'));
      at += count;
    }
  }

  /** @returns where the record that begins there ends. @throws Error if it is not as it was written, which no room on a disk mends */
  #check(bytes: Uint8Array, at: number, mostAt: number): number {
    const length = at + HEADER_BYTES <= mostAt ? readInt32(bytes, at + LENGTH_AT) : -1;
    const end = at + HEADER_BYTES + length;
    if (
      length >= 0 &&
      end <= mostAt &&
      (crc32(bytes.subarray(at + OWNER_AT, end)) | 0) === readInt32(bytes, at)
    )
      return end;
    throw new Error(
      `User histories in ${this.#folder} are damaged: a record is not as it was written. Check that disk, or set ` +
        'ONEMALL_HISTORY_FOLDER to a folder on another. A restart takes the histories from a snapshot or the log.',
    );
  }

  #error(what: string, cause: unknown): ColdHistoriesError {
    return new ColdHistoriesError(
      `${what} ${this.#folder} failed: ${(cause as Error).message}. Make room there, or set ONEMALL_HISTORY_FOLDER to a ` +
        'folder on a larger disk that this user may write to, or raise ONEMALL_HISTORY_CACHE_MB where memory has room for them',
      { cause },
    );
  }

  #close(segment: OpenSegment): void {
    this.#segments.delete(segment.number);
    this.#sealedBytes -= segment.sizeBytes;
    this.#sealedLive -= segment.liveBytes;
    if (this.#heldBack) this.#heldBack.set(segment.number, segment);
    else closeSync(segment.file);
  }
}

const placeOf = (position: number): { number: number; at: number } => {
  const number = Math.floor(position / NUMBER_FACTOR);
  return { number, at: position - number * NUMBER_FACTOR };
};
