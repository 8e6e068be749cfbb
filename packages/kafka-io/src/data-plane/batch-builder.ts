/** Record batches of format 2, written. One builder makes one batch: records in, then `seal` once or more. */
import { crc32c } from './crc32c.ts';
import { AT, ATTRIBUTE, BATCH_HEADER_BYTES, LENGTH_PREFIX_BYTES } from './record-batch.ts';

/** The broker takes one batch per partition and request, at most 1 MB by default; this leaves room for the header. */
export const MAX_BATCH_BYTES = 950_000;
const FIRST_CAPACITY_BYTES = 16 << 10;
/** Buffers of batches that were acknowledged, for the next ones: made anew each time they would be most of the garbage. */
const MAX_SPARES = 8;
const spares: Buffer[] = [];

export class BatchBuilder {
  #buffer = spares.pop() ?? Buffer.allocUnsafe(FIRST_CAPACITY_BYTES);
  #at = BATCH_HEADER_BYTES;
  #count = 0;
  #firstTimestampMs = 0;
  #maxTimestampMs = 0;

  get count(): number {
    return this.#count;
  }
  get sizeBytes(): number {
    return this.#at;
  }

  /** Adds a record, or says false where the batch would become too large; a first record of any size fits. */
  append(key: Uint8Array | null, value: Uint8Array | null, timestampMs: number): boolean {
    return this.appendFrom(
      key ?? NOTHING,
      0,
      key ? key.length : -1,
      value ?? NOTHING,
      0,
      value ? value.length : -1,
      timestampMs,
    );
  }

  /** The same with key and value as parts of larger bytes; a length of -1 is null. */
  appendFrom(
    key: Uint8Array,
    keyStart: number,
    keyLength: number,
    value: Uint8Array,
    valueStart: number,
    valueLength: number,
    timestampMs: number,
  ): boolean {
    const delta = timestampMs - (this.#count === 0 ? timestampMs : this.#firstTimestampMs);
    const bodyBytes =
      1 +
      varlongBytes(delta) +
      varlongBytes(this.#count) +
      varlongBytes(keyLength) +
      Math.max(0, keyLength) +
      varlongBytes(valueLength) +
      Math.max(0, valueLength) +
      1;
    const sizeBytes = varlongBytes(bodyBytes) + bodyBytes;
    if (this.#count > 0 && this.#at + sizeBytes > MAX_BATCH_BYTES) return false;
    this.#reserve(sizeBytes);
    if (this.#count === 0) {
      this.#firstTimestampMs = timestampMs;
      this.#maxTimestampMs = timestampMs;
    } else if (timestampMs > this.#maxTimestampMs) this.#maxTimestampMs = timestampMs;
    const buffer = this.#buffer;
    let at = writeVarlong(buffer, this.#at, bodyBytes);
    buffer[at++] = 0; // attributes
    at = writeVarlong(buffer, at, delta);
    at = writeVarlong(buffer, at, this.#count);
    at = writeBytes(buffer, at, key, keyStart, keyLength);
    at = writeBytes(buffer, at, value, valueStart, valueLength);
    buffer[at++] = 0; // no headers
    this.#at = at;
    this.#count++;
    return true;
  }

  /** The finished batch, a view of the builder's memory: sealing again with another producer rewrites it. */
  seal(producer: {
    producerId: number;
    producerEpoch: number;
    baseSequence: number;
    transactional: boolean;
  }): Buffer {
    const buffer = this.#buffer;
    buffer.writeBigInt64BE(0n, AT.baseOffset);
    buffer.writeInt32BE(this.#at - LENGTH_PREFIX_BYTES, AT.length);
    buffer.writeInt32BE(-1, AT.partitionLeaderEpoch);
    buffer[AT.magic] = 2;
    buffer.writeInt16BE(producer.transactional ? ATTRIBUTE.transactional : 0, AT.attributes);
    buffer.writeInt32BE(this.#count - 1, AT.lastOffsetDelta);
    buffer.writeBigInt64BE(BigInt(this.#firstTimestampMs), AT.baseTimestamp);
    buffer.writeBigInt64BE(BigInt(this.#maxTimestampMs), AT.maxTimestamp);
    buffer.writeBigInt64BE(BigInt(producer.producerId), AT.producerId);
    buffer.writeInt16BE(producer.producerEpoch, AT.producerEpoch);
    buffer.writeInt32BE(producer.baseSequence, AT.baseSequence);
    buffer.writeInt32BE(this.#count, AT.recordCount);
    buffer.writeUInt32BE(crc32c(buffer, AT.attributes, this.#at), AT.crc);
    return buffer.subarray(0, this.#at);
  }

  /** The broker has the batch: nobody may look at its bytes any more. */
  release(): void {
    if (spares.length < MAX_SPARES && this.#buffer.length <= 2 * MAX_BATCH_BYTES) spares.push(this.#buffer);
    this.#buffer = NOTHING;
  }

  #reserve(sizeBytes: number): void {
    const needed = this.#at + sizeBytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }
}

const zigzag = (value: number): number => (value >= 0 ? value * 2 : -value * 2 - 1);

function varlongBytes(value: number): number {
  let rest = zigzag(value);
  let bytes = 1;
  for (; rest > 0x7f; bytes++) rest = Math.floor(rest / 128);
  return bytes;
}

function writeVarlong(buffer: Buffer, start: number, value: number): number {
  let rest = zigzag(value);
  let at = start;
  while (rest > 0x7f) {
    buffer[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  buffer[at++] = rest;
  return at;
}

/** A call into native code costs more than it saves for what is short. */
const COPY_BY_LOOP = 20;
/** Takes any bytes, and unlike `set` no view of them. */
const { copy } = Buffer.prototype;

function writeBytes(
  buffer: Buffer,
  start: number,
  bytes: Uint8Array,
  bytesStart: number,
  length: number,
): number {
  const at = writeVarlong(buffer, start, length);
  if (length <= 0) return at;
  if (length <= COPY_BY_LOOP) for (let i = 0; i < length; i++) buffer[at + i] = bytes[bytesStart + i]!;
  else copy.call(bytes, buffer, at, bytesStart, bytesStart + length);
  return at + length;
}

const NOTHING = Buffer.alloc(0);
