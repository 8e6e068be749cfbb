/** Avro's binary encoding, written in place. https://avro.apache.org/docs/1.12.0/specification/#binary-encoding */
import { copyBytes } from './hash.ts';

const TWO_28 = 268_435_456;

/** What is larger grows by a quarter. */
const DOUBLED_BELOW_BYTES = 1 << 20;

/** A string with its length before it. */
export function avroString(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  const writer = new AvroWriter(bytes.length + 10);
  writer.string(bytes, 0, bytes.length);
  return writer.bytes.slice(0, writer.at);
}

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
