/** Kafka's primitive types, written to and read from buffers. https://kafka.apache.org/protocol.html#protocol_types */
export class WireWriter {
  #buffer: Buffer;
  #size = 0;
  constructor(capacity = 512) {
    this.#buffer = Buffer.allocUnsafe(capacity);
  }
  /** What has been written; a view. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#size);
  }
  #reserve(sizeBytes: number): number {
    const at = this.#size;
    if (at + sizeBytes > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, at + sizeBytes));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    this.#size = at + sizeBytes;
    return at;
  }
  int8(value: number): this {
    const at = this.#reserve(1);
    this.#buffer.writeInt8(value, at);
    return this;
  }
  int16(value: number): this {
    const at = this.#reserve(2);
    this.#buffer.writeInt16BE(value, at);
    return this;
  }
  int32(value: number): this {
    const at = this.#reserve(4);
    this.#buffer.writeInt32BE(value, at);
    return this;
  }
  int64(value: number): this {
    const at = this.#reserve(8);
    this.#buffer.writeBigInt64BE(BigInt(value), at);
    return this;
  }
  string(value: string | null): this {
    if (value === null) return this.int16(-1);
    const sizeBytes = Buffer.byteLength(value);
    this.int16(sizeBytes);
    const at = this.#reserve(sizeBytes);
    this.#buffer.write(value, at);
    return this;
  }
  /** Unsigned varint of flexible versions (KIP-482). */
  uvarint(value: number): this {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.#buffer[this.#reserve(1)] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[this.#reserve(1)] = rest;
    return this;
  }
  compactString(value: string): this {
    const sizeBytes = Buffer.byteLength(value);
    this.uvarint(sizeBytes + 1);
    const at = this.#reserve(sizeBytes);
    this.#buffer.write(value, at);
    return this;
  }
  array<T>(items: readonly T[], write: (item: T) => void): this {
    this.int32(items.length);
    for (const item of items) write(item);
    return this;
  }
  compactArray<T>(items: readonly T[], write: (item: T) => void): this {
    this.uvarint(items.length + 1);
    for (const item of items) write(item);
    return this;
  }
}

export class WireReader {
  readonly #buffer: Buffer;
  position: number;
  constructor(buffer: Buffer, position = 0) {
    this.#buffer = buffer;
    this.position = position;
  }
  int8(): number {
    return this.#buffer.readInt8(this.position++);
  }
  int16(): number {
    const value = this.#buffer.readInt16BE(this.position);
    this.position += 2;
    return value;
  }
  int32(): number {
    const value = this.#buffer.readInt32BE(this.position);
    this.position += 4;
    return value;
  }
  int64(): number {
    const value = readInt64(this.#buffer, this.position);
    this.position += 8;
    return value;
  }
  string(): string | null {
    const sizeBytes = this.int16();
    return sizeBytes < 0 ? null : this.#text(sizeBytes);
  }
  uvarint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#buffer[this.position++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }
  compactString(): string | null {
    const sizePlusOne = this.uvarint();
    return sizePlusOne === 0 ? null : this.#text(sizePlusOne - 1);
  }
  bytes(sizeBytes: number): Buffer {
    const value = this.#buffer.subarray(this.position, this.position + sizeBytes);
    this.position += sizeBytes;
    return value;
  }
  array<T>(read: () => T): T[] {
    return Array.from({ length: Math.max(0, this.int32()) }, read);
  }
  compactArray<T>(read: () => T): T[] {
    return Array.from({ length: Math.max(0, this.uvarint() - 1) }, read);
  }
  /** Tagged fields of flexible versions: none is known here, all are passed over. */
  skipTags(): void {
    for (let tags = this.uvarint(); tags > 0; tags--) {
      this.uvarint();
      const sizeBytes = this.uvarint(); // moves the position too: it must have been read before that is added to
      this.position += sizeBytes;
    }
  }
  #text(sizeBytes: number): string {
    const value = this.#buffer.toString('utf8', this.position, this.position + sizeBytes);
    this.position += sizeBytes;
    return value;
  }
}

/** A signed 64-bit integer as a number: exact for offsets, times and producer ids, all below 2^53. */
export function readInt64(buffer: Buffer, position: number): number {
  return buffer.readInt32BE(position) * 4_294_967_296 + buffer.readUInt32BE(position + 4);
}
