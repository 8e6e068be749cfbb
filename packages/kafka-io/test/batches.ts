/** Record batches as a broker would hand them out, for tests: offsets, control and compression set from outside. */
import { BatchBuilder } from '../src/data-plane/batch-builder.ts';
import { crc32c } from '../src/data-plane/crc32c.ts';
import {
  AT,
  BATCH_HEADER_BYTES,
  LENGTH_PREFIX_BYTES,
  type RecordCursor,
} from '../src/data-plane/record-batch.ts';

export interface TestRecord {
  key: Buffer | null;
  value: Buffer | null;
  timestampMs: number;
}
export interface BatchShape {
  baseOffset: number;
  records: readonly TestRecord[];
  producerId?: number;
  /** Attribute bits beyond what the builder sets: compression, append time, control. */
  attributes?: number;
  transactional?: boolean;
  /** Compaction keeps a batch's end when it takes its last records. */
  lastOffsetDelta?: number;
  compress?: (records: Buffer) => Buffer;
}

export const record = (key: string | null, value: string | null, timestampMs = 1_000): TestRecord => ({
  key: key === null ? null : Buffer.from(key),
  value: value === null ? null : Buffer.from(value),
  timestampMs,
});

export function batch(shape: BatchShape): Buffer {
  const builder = new BatchBuilder();
  for (const { key, value, timestampMs } of shape.records) builder.append(key, value, timestampMs);
  const sealed = Buffer.from(
    builder.seal({
      producerId: shape.producerId ?? -1,
      producerEpoch: 0,
      baseSequence: 0,
      transactional: shape.transactional ?? false,
    }),
  );
  const body = shape.compress
    ? shape.compress(sealed.subarray(BATCH_HEADER_BYTES))
    : sealed.subarray(BATCH_HEADER_BYTES);
  const bytes = Buffer.concat([sealed.subarray(0, BATCH_HEADER_BYTES), body]);
  bytes.writeBigInt64BE(BigInt(shape.baseOffset), AT.baseOffset);
  bytes.writeInt32BE(bytes.length - LENGTH_PREFIX_BYTES, AT.length);
  bytes.writeInt16BE(bytes.readInt16BE(AT.attributes) | (shape.attributes ?? 0), AT.attributes);
  if (shape.lastOffsetDelta !== undefined) bytes.writeInt32BE(shape.lastOffsetDelta, AT.lastOffsetDelta);
  return withCrc(bytes);
}

export function withCrc(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32c(bytes, AT.attributes), AT.crc);
  return bytes;
}

const CONTROL_AND_TRANSACTIONAL = 0x30;
/** The marker that ends a transaction: key is version 0 and type, 0 aborts and 1 commits. */
export function marker(type: 'abort' | 'commit', baseOffset: number, producerId: number): Buffer {
  const key = Buffer.from([0, 0, 0, type === 'abort' ? 0 : 1]);
  return batch({
    baseOffset,
    producerId,
    attributes: CONTROL_AND_TRANSACTIONAL,
    records: [{ key, value: Buffer.alloc(6), timestampMs: 1_000 }],
  });
}

export interface SeenRecord {
  offset: number;
  timestampMs: number;
  key: string | null;
  value: string | null;
}
export function seen(cursor: RecordCursor): SeenRecord[] {
  const found: SeenRecord[] = [];
  const text = (start: number, length: number): string | null =>
    length < 0 ? null : cursor.bytes.toString('utf8', start, start + length);
  while (cursor.next())
    found.push({
      offset: cursor.offset,
      timestampMs: cursor.timestampMs,
      key: text(cursor.keyStart, cursor.keyLength),
      value: text(cursor.valueStart, cursor.valueLength),
    });
  return found;
}
