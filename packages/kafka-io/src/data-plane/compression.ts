/** The record sections of compressed batches. Kafka's codec numbers are the lowest three bits of a batch's attributes. */
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { snappyUncompressor } from 'hysnappy';
import { CorruptBatchError } from '../errors.ts';
import { lz4Uncompress } from './lz4.ts';

export const CODEC_MASK = 7;
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;

/** No honest batch of 1 MB becomes larger than this; a bomb stops here. */
const MAX_UNCOMPRESSED_BYTES = 256 << 20;

/** @throws CorruptBatchError when the bytes do not uncompress or the codec is unknown */
export function uncompress(codec: number, bytes: Buffer): Buffer {
  const options = { maxOutputLength: MAX_UNCOMPRESSED_BYTES };
  try {
    switch (CODECS[codec]) {
      case 'gzip':
        return gunzipSync(bytes, options);
      case 'snappy':
        return uncompressSnappy(bytes);
      case 'lz4':
        return lz4Uncompress(bytes, MAX_UNCOMPRESSED_BYTES);
      case 'zstd':
        return zstdDecompressSync(bytes, options);
      default:
        throw new Error(`expected one of ${CODECS.join(', ')}, got codec number ${codec}`);
    }
  } catch (cause) {
    throw new CorruptBatchError(
      `A record batch compressed with ${CODECS[codec] ?? codec} does not uncompress: ${(cause as Error).message}`,
      { cause },
    );
  }
}

const XERIAL_HEADER = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const XERIAL_HEADER_BYTES = 16;
let snappy: ((input: Uint8Array, outputLength: number) => Uint8Array) | undefined;

/** Java producers frame snappy as xerial blocks; librdkafka sends one raw block. */
function uncompressSnappy(bytes: Buffer): Buffer {
  if (bytes.length < XERIAL_HEADER_BYTES || !bytes.subarray(0, XERIAL_HEADER.length).equals(XERIAL_HEADER))
    return uncompressSnappyBlock(bytes);
  const blocks: Buffer[] = [];
  let total = 0;
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const sizeBytes = bytes.readUInt32BE(at);
    const block = bytes.subarray(at + 4, at + 4 + sizeBytes);
    if (block.length !== sizeBytes) throw new Error('the frame ends inside a block');
    blocks.push(uncompressSnappyBlock(block));
    total += blocks.at(-1)!.length;
    if (total > MAX_UNCOMPRESSED_BYTES)
      throw new Error(`the content is larger than ${MAX_UNCOMPRESSED_BYTES} bytes`);
    at += 4 + sizeBytes;
  }
  return Buffer.concat(blocks);
}

function uncompressSnappyBlock(block: Buffer): Buffer {
  let sizeBytes = 0;
  for (let at = 0, factor = 1; ; at++, factor *= 128) {
    if (at >= block.length || at > 4) throw new Error('the block does not begin with its size');
    sizeBytes += (block[at]! & 0x7f) * factor;
    if (block[at]! < 0x80) break;
  }
  if (sizeBytes > MAX_UNCOMPRESSED_BYTES)
    throw new Error(`the content is larger than ${MAX_UNCOMPRESSED_BYTES} bytes`);
  if (sizeBytes === 0) return Buffer.alloc(0);
  snappy ??= snappyUncompressor();
  return Buffer.from(snappy(block, sizeBytes));
}
