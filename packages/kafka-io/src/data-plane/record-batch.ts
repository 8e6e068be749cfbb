/**
 * Record batches of format 2, read in place from the bytes of a Fetch answer.
 * Layout: https://kafka.apache.org/documentation/#recordbatch. Everything a consumer may see is decided here from the
 * batches themselves: checksums, compression, control batches, aborted transactions, compacted and cut-off batches.
 */
import { CorruptBatchError } from '../errors.ts';
import { CODEC_MASK, uncompress } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { readInt64 } from './wire.ts';

export const BATCH_HEADER_BYTES = 61;
/** Base offset and length stand before what the length counts. */
export const LENGTH_PREFIX_BYTES = 12;
/** Positions inside a batch. */
export const AT = {
  baseOffset: 0,
  length: 8,
  partitionLeaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  recordCount: 57,
} as const;
export const ATTRIBUTE = { logAppendTime: 8, transactional: 16, control: 32 } as const;
const ABORT_MARKER = 0;

export interface AbortedTransaction {
  producerId: number;
  /** Offset of its first record. */
  firstOffset: number;
}

/** Where a transaction of the partition ended: its commit or abort marker, which takes an offset of its own. */
export interface TransactionEnd {
  producerId: number;
  offset: number;
  /** Of the broker. */
  timestampMs: number;
}

/** The visible records of one batch, uncompressed. */
export interface BatchView {
  bytes: Buffer;
  /** Where the first record begins in `bytes`. */
  start: number;
  end: number;
  count: number;
  baseOffset: number;
  baseTimestampMs: number;
  /** Set where the broker stamped the batch; it holds for every record. */
  appendTimeMs: number | undefined;
  /** -1 outside a transaction. */
  producerId: number;
}

export interface RecordSet {
  batches: BatchView[];
  ends: TransactionEnd[];
  /** Offset after the last whole batch; the offset asked for when there was none. */
  nextOffset: number;
  /** Size of the first batch where not even that one came whole: ask for so many bytes. */
  neededBytes: number | undefined;
}

/**
 * Walks the record set of one partition.
 * @param fetchOffset records before it are left out: an answer begins at a batch, maybe before the offset asked for
 * @param aborted what the broker lists for this answer, in any order, overlapping or not
 * @throws CorruptBatchError
 */
export function parseRecordSet(
  set: Buffer,
  fetchOffset: number,
  aborted: readonly AbortedTransaction[],
): RecordSet {
  const batches: BatchView[] = [];
  const ends: TransactionEnd[] = [];
  const waiting = aborted.toSorted((a, b) => a.firstOffset - b.firstOffset);
  let nextWaiting = 0;
  const abortedProducers = new Set<number>();
  let nextOffset = fetchOffset;
  let at = 0;
  let neededBytes: number | undefined;
  while (set.length - at >= LENGTH_PREFIX_BYTES) {
    const sizeBytes = set.readInt32BE(at + AT.length) + LENGTH_PREFIX_BYTES;
    if (sizeBytes < BATCH_HEADER_BYTES)
      throw new CorruptBatchError(
        `Expected a record batch of at least ${BATCH_HEADER_BYTES} bytes at offset ${nextOffset}, its length field says ${sizeBytes}`,
      );
    if (at + sizeBytes > set.length) {
      if (at === 0) neededBytes = sizeBytes;
      break;
    }
    const batch = set.subarray(at, at + sizeBytes);
    at += sizeBytes;
    const baseOffset = readInt64(batch, AT.baseOffset);
    const magic = batch[AT.magic]!;
    if (magic !== 2)
      throw new CorruptBatchError(
        `Expected record format 2 at offset ${baseOffset}, got ${magic}: rewrite the topic with a producer of Kafka 0.11 or newer`,
      );
    const expectedCrc = batch.readUInt32BE(AT.crc);
    const actualCrc = crc32c(batch, AT.attributes);
    if (expectedCrc !== actualCrc)
      throw new CorruptBatchError(
        `Expected CRC-32C ${hex(expectedCrc)} of the record batch at offset ${baseOffset}, computed ${hex(actualCrc)}: the bytes changed on disk or on the way`,
      );
    const attributes = batch.readInt16BE(AT.attributes);
    // The delta keeps the batch's original end even where compaction took its last records, or all of them.
    const lastOffset = baseOffset + batch.readInt32BE(AT.lastOffsetDelta);
    if (lastOffset < fetchOffset) continue;
    nextOffset = lastOffset + 1;

    const transactional = (attributes & ATTRIBUTE.transactional) !== 0;
    const producerId = transactional ? readInt64(batch, AT.producerId) : -1;
    while (nextWaiting < waiting.length && waiting[nextWaiting]!.firstOffset <= lastOffset)
      abortedProducers.add(waiting[nextWaiting++]!.producerId);
    if (attributes & ATTRIBUTE.control) {
      if (controlType(batch) === ABORT_MARKER) abortedProducers.delete(producerId);
      ends.push({ producerId, offset: lastOffset, timestampMs: readInt64(batch, AT.maxTimestamp) });
      continue;
    }
    if (transactional && abortedProducers.has(producerId)) continue;

    const count = batch.readInt32BE(AT.recordCount);
    if (count === 0) continue;
    const codec = attributes & CODEC_MASK;
    const bytes = codec === 0 ? batch : uncompress(codec, batch.subarray(BATCH_HEADER_BYTES));
    batches.push({
      bytes,
      start: codec === 0 ? BATCH_HEADER_BYTES : 0,
      end: bytes.length,
      count,
      baseOffset,
      baseTimestampMs: readInt64(batch, AT.baseTimestamp),
      appendTimeMs: attributes & ATTRIBUTE.logAppendTime ? readInt64(batch, AT.maxTimestamp) : undefined,
      producerId,
    });
  }
  return { batches, ends, nextOffset, neededBytes };
}

/** Type of a control record: 0 aborts, 1 commits. Its key is a version and the type, 2 bytes each. */
function controlType(batch: Buffer): number {
  if (batch.readInt32BE(AT.recordCount) === 0) return -1;
  const cursor = new RecordCursor(
    [
      {
        bytes: batch,
        start: BATCH_HEADER_BYTES,
        end: batch.length,
        count: 1,
        baseOffset: 0,
        baseTimestampMs: 0,
        appendTimeMs: undefined,
        producerId: -1,
      },
    ],
    0,
  );
  return cursor.next() && cursor.keyLength >= 4 ? batch.readInt16BE(cursor.keyStart + 2) : -1;
}

/** Goes over records without making an object for each: after `next()` the fields tell of the current one. */
export class RecordCursor {
  /** The bytes that key and value lie in. */
  bytes: Buffer = EMPTY;
  offset = -1;
  timestampMs = -1;
  /** -1 outside a transaction. */
  producerId = -1;
  keyStart = 0;
  /** -1 for null. */
  keyLength = -1;
  valueStart = 0;
  /** -1 for null. */
  valueLength = -1;
  readonly #batches: readonly BatchView[];
  readonly #fetchOffset: number;
  #nextBatch = 0;
  #batch: BatchView | undefined;
  #left = 0;
  #at = 0;

  constructor(batches: readonly BatchView[], fetchOffset: number) {
    this.#batches = batches;
    this.#fetchOffset = fetchOffset;
  }

  /** At most so many records come in all. */
  get maxCount(): number {
    return this.#batches.reduce((sum, batch) => sum + batch.count, 0);
  }

  /** Moves to the next record; false at the end. @throws CorruptBatchError when a record reaches past its batch */
  next(): boolean {
    for (;;) {
      if (this.#left === 0) {
        if (this.#nextBatch === this.#batches.length) return false;
        const batch = this.#batches[this.#nextBatch++]!;
        this.#batch = batch;
        this.bytes = batch.bytes;
        this.producerId = batch.producerId;
        this.#left = batch.count;
        this.#at = batch.start;
      }
      this.#left--;
      this.#read(this.#batch!);
      if (this.offset >= this.#fetchOffset) return true;
    }
  }

  #read(batch: BatchView): void {
    const { bytes } = batch;
    const length = this.#varint(bytes);
    const end = this.#at + length;
    if (length < 0 || end > batch.end)
      throw new CorruptBatchError(
        `A record of the batch at offset ${batch.baseOffset} says it has ${length} bytes, ${batch.end - this.#at} are left`,
      );
    this.#at++; // attributes of a record are unused
    const timestampDelta = this.#varlong(bytes);
    this.timestampMs = batch.appendTimeMs ?? batch.baseTimestampMs + timestampDelta;
    this.offset = batch.baseOffset + this.#varint(bytes);
    this.keyLength = this.#varint(bytes);
    this.keyStart = this.#at;
    if (this.keyLength > 0) this.#at += this.keyLength;
    this.valueLength = this.#varint(bytes);
    this.valueStart = this.#at;
    if (this.valueLength > 0) this.#at += this.valueLength;
    if (this.#at > end)
      throw new CorruptBatchError(
        `Key and value of offset ${this.offset} reach ${this.#at - end} bytes past their record`,
      );
    this.#at = end; // headers are not used by this pipeline
  }

  /** Zigzag varint of at most 32 bits. */
  #varint(bytes: Buffer): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = bytes[this.#at++];
      if (byte === undefined) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
    throw new CorruptBatchError('A varint of a record does not end');
  }

  /** Zigzag varint of at most 64 bits, as a number. */
  #varlong(bytes: Buffer): number {
    let value = 0;
    let factor = 1;
    for (let length = 0; length < 10; length++, factor *= 128) {
      const byte = bytes[this.#at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    }
    throw new CorruptBatchError('A varint of a record does not end');
  }
}

const EMPTY = Buffer.alloc(0);
const hex = (crc: number): string => `0x${crc.toString(16).padStart(8, '0')}`;
