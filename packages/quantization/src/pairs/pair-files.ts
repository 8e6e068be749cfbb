/** Pairs as artifact files: pairs.json (items, filters, origin) and commercial.bin, watching.bin: int32 [N, 2], little endian. */
import type { FilterCount } from './pair.ts';

export interface PairSet {
  /** Ids by index, sorted. */
  itemIds: string[];
  /** (product, product) and (video, product), int32 [N, 2]. */
  commercial: Int32Array;
  watching: Int32Array;
  /** What each filter left, by kind. */
  filters: Record<string, FilterCount[]>;
  /** Nothing that happened later went into them. */
  cutoffMs: number;
}

/** Files that hold no pairs of this format. */
export class PairFileError extends Error {
  override name = 'PairFileError';
}

export function writePairs({ commercial, watching, ...rest }: PairSet): Map<string, Uint8Array> {
  return new Map([
    ['pairs.json', Buffer.from(`${JSON.stringify({ format: 'onemall-pairs', ...rest })}\n`)],
    ['commercial.bin', littleEndian(commercial)],
    ['watching.bin', littleEndian(watching)],
  ]);
}

/** @throws PairFileError naming the file and what is wrong with it */
export function readPairs(files: ReadonlyMap<string, Uint8Array>): PairSet {
  const file = (name: string): Buffer => {
    const bytes = files.get(name);
    if (!bytes)
      throw new PairFileError(`Expected a file ${name}, the artifact has ${[...files.keys()].join(', ')}`);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const header = JSON.parse(file('pairs.json').toString('utf8')) as PairSet & { format?: string };
  if (header.format !== 'onemall-pairs' || !Array.isArray(header.itemIds))
    throw new PairFileError(
      `pairs.json: expected format "onemall-pairs", got ${JSON.stringify(header.format)}`,
    );
  const { itemIds, filters, cutoffMs } = header;
  const pairs = (name: string): Int32Array => {
    const bytes = file(name);
    if (bytes.length % 8 !== 0)
      throw new PairFileError(`${name}: ${bytes.length} bytes are no pairs of int32`);
    const list = Int32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readInt32LE(i * 4));
    const wrong = list.find((index) => index < 0 || index >= itemIds.length);
    if (wrong !== undefined)
      throw new PairFileError(`${name} names item ${wrong}, pairs.json has ${itemIds.length} items`);
    return list;
  };
  return { itemIds, filters, cutoffMs, commercial: pairs('commercial.bin'), watching: pairs('watching.bin') };
}

function littleEndian(numbers: Int32Array): Uint8Array {
  const bytes = Buffer.alloc(numbers.length * 4);
  for (const [i, n] of numbers.entries()) bytes.writeInt32LE(n, i * 4);
  return bytes;
}
