/** Avro's binary encoding, read and written in place. https://avro.apache.org/docs/1.12.0/specification/#binary-encoding */
import { copyBytes } from './hash.ts';

const TWO_28 = 268_435_456;
const EMPTY = new Uint8Array(0);

/** Once something is not as Avro has it, `ok` stays false and positions mean nothing. */
export class AvroReader {
  bytes: Uint8Array = EMPTY;
  at = 0;
  end = 0;
  ok = true;

  on(bytes: Uint8Array, start: number, end: number): this {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
    this.ok = true;
    return this;
  }

  /** int or long; exact to 2^53, and not ok beyond. */
  long(): number {
    const { bytes, end } = this;
    let at = this.at;
    if (at >= end) return this.#fail();
    let byte = bytes[at++]!;
    let low = byte & 0x7f;
    for (let shift = 7; byte > 0x7f && shift < 28; shift += 7) {
      if (at >= end) return this.#fail();
      byte = bytes[at++]!;
      low |= (byte & 0x7f) << shift;
    }
    let high = 0;
    for (let factor = 1; byte > 0x7f; factor *= 128) {
      if (at >= end || factor > TWO_28) return this.#fail();
      byte = bytes[at++]!;
      high += (byte & 0x7f) * factor;
    }
    this.at = at;
    const half = (low >>> 1) + high * (TWO_28 / 2);
    if (half > Number.MAX_SAFE_INTEGER) return this.#fail();
    return low & 1 ? -half - 1 : half;
  }

  /** Passes over a string. @returns its length in bytes; it begins where the position now is less this */
  string(): number {
    const length = this.long();
    if (length < 0 || length > this.end - this.at) return this.#fail();
    this.at += length;
    return length;
  }

  /** The branch of a union of null and something: whether it is something. */
  isSome(): boolean {
    const branch = this.long();
    if (branch !== 0 && branch !== 1) this.ok = false;
    return branch === 1;
  }

  /** Passes over bytes of a known count. */
  skip(length: number): void {
    if (length < 0 || length > this.end - this.at) this.#fail();
    else this.at += length;
  }

  #fail(): number {
    this.ok = false;
    return 0;
  }
}

/** What is larger grows by a quarter. */
const DOUBLED_BELOW_BYTES = 1 << 20;

/** Grows as it is written to. */
export class AvroWriter {
  bytes: Uint8Array;
  at = 0;
  constructor(capacity = 4096) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
  }

  /** Makes room for so many more bytes; the calls below rely on it. */
  reserve(length: number): void {
    if (this.at + length <= this.bytes.length) return;
    const more = this.bytes.length < DOUBLED_BELOW_BYTES ? this.bytes.length : this.bytes.length >> 2;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.at + length, this.bytes.length + more));
    larger.set(this.bytes.subarray(0, this.at));
    this.bytes = larger;
  }

  byte(value: number): void {
    this.bytes[this.at++] = value;
  }
  boolean(value: boolean): void {
    this.bytes[this.at++] = value ? 1 : 0;
  }

  /** int or long, at most 10 bytes. */
  long(value: number): void {
    const { bytes } = this;
    let at = this.at;
    const zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
    let low = zigzag;
    if (zigzag >= TWO_28) {
      const high = Math.floor(zigzag / TWO_28);
      low = zigzag - high * TWO_28;
      for (let group = 0; group < 4; group++, low >>>= 7) bytes[at++] = (low & 0x7f) | 0x80;
      low = high;
    }
    for (; low > 0x7f; low >>>= 7) bytes[at++] = (low & 0x7f) | 0x80;
    bytes[at++] = low;
    this.at = at;
  }

  /** A union of null and long. */
  optionalLong(value: number | null): void {
    if (value === null) this.byte(0);
    else {
      this.byte(2);
      this.long(value);
    }
  }

  raw(from: Uint8Array, start: number, length: number): void {
    copyBytes(from, start, length, this.bytes, this.at);
    this.at += length;
  }

  /** A string or bytes with its length before it. */
  string(from: Uint8Array, start: number, length: number): void {
    this.long(length);
    this.raw(from, start, length);
  }
}
