/**
 * LZ4 frames, read only. Frame: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md; block: lz4_Block_format.md.
 * Header and content checksums (xxHash) are not checked: the batch's CRC-32C covers the same bytes.
 */
const MAGIC = 0x184d2204;
const VERSION_MASK = 0xc0;
const VERSION_1 = 0x40;
const BLOCK_CHECKSUM = 0x10;
const CONTENT_SIZE = 0x08;
const CONTENT_CHECKSUM = 0x04;
const DICTIONARY_ID = 0x01;
const UNCOMPRESSED_BLOCK = 0x80000000;

/** @throws Error when the frame is malformed or larger than maxBytes. */
export function lz4Uncompress(input: Buffer, maxBytes: number): Buffer {
  if (input.length < 7 || input.readUInt32LE(0) !== MAGIC) throw new Error('not an LZ4 frame');
  const flags = input[4]!;
  if ((flags & VERSION_MASK) !== VERSION_1) throw new Error('unknown LZ4 frame version');
  if (flags & DICTIONARY_ID) throw new Error('LZ4 dictionaries are not supported');
  let at = 7 + (flags & CONTENT_SIZE ? 8 : 0);
  const output = new Output(Math.min(maxBytes, Math.max(4096, input.length * 4)), maxBytes);
  for (;;) {
    const size = input.readUInt32LE(at);
    at += 4;
    if (size === 0) break;
    const sizeBytes = size & ~UNCOMPRESSED_BLOCK;
    const block = input.subarray(at, at + sizeBytes);
    if (block.length !== sizeBytes) throw new Error('LZ4 frame ends inside a block');
    if (size & UNCOMPRESSED_BLOCK) output.literals(block, 0, sizeBytes);
    else uncompressBlock(block, output);
    at += sizeBytes + (flags & BLOCK_CHECKSUM ? 4 : 0);
  }
  if (flags & CONTENT_CHECKSUM && at + 4 > input.length)
    throw new Error('LZ4 frame ends before its checksum');
  return output.bytes();
}

function uncompressBlock(block: Buffer, output: Output): void {
  let at = 0;
  const length = (nibble: number): number => {
    let value = nibble;
    if (nibble === 15)
      for (let byte = 255; byte === 255; value += byte) {
        if (at >= block.length) throw new Error('LZ4 block ends inside a length');
        byte = block[at++]!;
      }
    return value;
  };
  while (at < block.length) {
    const token = block[at++]!;
    const literals = length(token >> 4);
    if (at + literals > block.length) throw new Error('LZ4 block ends inside literals');
    output.literals(block, at, literals);
    at += literals;
    if (at === block.length) return; // the last sequence has no match
    if (at + 2 > block.length) throw new Error('LZ4 block ends inside a match');
    const distance = block.readUInt16LE(at);
    at += 2;
    output.match(distance, length(token & 15) + 4);
  }
}

class Output {
  #buffer: Buffer;
  #size = 0;
  readonly #maxBytes: number;
  constructor(capacity: number, maxBytes: number) {
    this.#buffer = Buffer.allocUnsafe(capacity);
    this.#maxBytes = maxBytes;
  }
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#size);
  }
  #reserve(sizeBytes: number): void {
    const needed = this.#size + sizeBytes;
    if (needed <= this.#buffer.length) return;
    if (needed > this.#maxBytes) throw new Error(`LZ4 content is larger than ${this.#maxBytes} bytes`);
    const larger = Buffer.allocUnsafe(Math.min(this.#maxBytes, Math.max(needed, this.#buffer.length * 2)));
    this.#buffer.copy(larger, 0, 0, this.#size);
    this.#buffer = larger;
  }
  literals(from: Buffer, start: number, sizeBytes: number): void {
    this.#reserve(sizeBytes);
    from.copy(this.#buffer, this.#size, start, start + sizeBytes);
    this.#size += sizeBytes;
  }
  match(distance: number, sizeBytes: number): void {
    if (distance === 0 || distance > this.#size) throw new Error(`LZ4 match reaches ${distance} bytes back`);
    this.#reserve(sizeBytes);
    // Byte by byte: a match may overlap what it writes.
    for (let i = 0; i < sizeBytes; i++, this.#size++)
      this.#buffer[this.#size] = this.#buffer[this.#size - distance]!;
  }
}
