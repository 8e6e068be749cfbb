/** Reads Kafka's primitive types. https://kafka.apache.org/protocol.html#protocol_types */
export class WireReader {
  readonly #bytes: Buffer;
  position: number;
  constructor(bytes: Buffer, position: number) {
    this.#bytes = bytes;
    this.position = position;
  }
  skip(numBytes: number): void {
    this.position += numBytes;
  }
  int16(): number {
    const value = this.#bytes.readInt16BE(this.position);
    this.position += 2;
    return value;
  }
  int32(): number {
    const value = this.#bytes.readInt32BE(this.position);
    this.position += 4;
    return value;
  }
  string(): string | null {
    const size = this.int16();
    if (size < 0) return null;
    const value = this.#bytes.toString('utf8', this.position, this.position + size);
    this.position += size;
    return value;
  }
}
