const TWO_28 = 268_435_456;
const EMPTY = new Uint8Array(0);

/**
 * Avro's binary encoding, read in place. https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
 * Once something is not as Avro has it, `ok` stays false and positions mean nothing.
 */
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
    if (byte <= 0x7f) {
      this.at = at;
      return (byte >>> 1) ^ -(byte & 1);
    }
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
