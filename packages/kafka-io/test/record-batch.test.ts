import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { snappyCompress } from 'hysnappy';
import { BatchBuilder, MAX_BATCH_BYTES } from '../src/data-plane/batch-builder.ts';
import { crc32c, crc32cByTables } from '../src/data-plane/crc32c.ts';
import {
  type AbortedTransaction,
  AT,
  ATTRIBUTE,
  BATCH_HEADER_BYTES,
  parseRecordSet,
  RecordCursor,
} from '../src/data-plane/record-batch.ts';
import { CorruptBatchError } from '../src/errors.ts';
import { batch, marker, record, seen, type TestRecord, withCrc } from './batches.ts';

const read = (set: Buffer, fetchOffset = 0, aborted: AbortedTransaction[] = []) => {
  const parsed = parseRecordSet(set, fetchOffset, aborted);
  return { ...parsed, records: seen(new RecordCursor(parsed.batches, fetchOffset)) };
};
const values = (set: Buffer, fetchOffset = 0, aborted: AbortedTransaction[] = []) =>
  read(set, fetchOffset, aborted).records.map((r) => r.value);

/** Bytes that Kafka's documentation names for the algorithm ("123456789"), and the RFC 3720 vectors. */
describe('crc32c', () => {
  it('gives the published check values', () => {
    assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
    assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
    assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
    assert.equal(crc32c(Buffer.from('xx123456789x'), 2, 11), 0xe3069283);
  });

  it('is the same by tables as by the native module, wherever the bytes begin', () => {
    const bytes = Buffer.from(Array.from({ length: 300 }, (_, i) => (i * 37 + (i >> 3)) & 0xff));
    for (let start = 0; start < 20; start++)
      for (const end of [start, start + 1, start + 7, start + 100, 299])
        assert.equal(crc32cByTables(bytes, start, end), crc32c(bytes, start, end));
  });
});

describe('a record batch', () => {
  const bytes = fc.option(fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b)));
  const anyRecord = fc.record<TestRecord>({
    key: bytes,
    value: bytes,
    timestampMs: fc.oneof(fc.nat(), fc.integer({ min: -1, max: 4_000_000_000_000 })),
  });

  it('reads back what was written, whatever the bytes and times', () => {
    fc.assert(
      fc.property(
        fc.array(anyRecord, { minLength: 1, maxLength: 200 }),
        fc.integer({ min: 0, max: 2 ** 50 }),
        (records, baseOffset) => {
          const parsed = parseRecordSet(batch({ baseOffset, records }), baseOffset, []);
          assert.equal(parsed.nextOffset, baseOffset + records.length);
          const cursor = new RecordCursor(parsed.batches, baseOffset);
          for (const [i, expected] of records.entries()) {
            assert.ok(cursor.next());
            assert.equal(cursor.offset, baseOffset + i);
            assert.equal(cursor.timestampMs, expected.timestampMs);
            const part = (start: number, length: number) =>
              length < 0 ? null : cursor.bytes.subarray(start, start + length);
            assert.deepEqual(part(cursor.keyStart, cursor.keyLength), expected.key);
            assert.deepEqual(part(cursor.valueStart, cursor.valueLength), expected.value);
          }
          assert.equal(cursor.next(), false);
        },
      ),
      { seed: 1, numRuns: 200 },
    );
  });

  it('refuses every single changed byte after its length', () => {
    const good = batch({ baseOffset: 7, records: [record('k', 'value'), record('k', null)] });
    for (let at = AT.magic; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at]! ^= 0x40;
      assert.throws(() => read(bad), CorruptBatchError, `byte ${at}`);
    }
  });

  it('names both checksums and the offset', () => {
    const bad = batch({ baseOffset: 7, records: [record('k', 'value')] });
    bad[bad.length - 1]! ^= 1;
    assert.throws(() => read(bad), /Expected CRC-32C 0x[0-9a-f]{8} of the record batch at offset 7/);
  });

  it('leaves a cut-off last batch for the next fetch', () => {
    const first = batch({ baseOffset: 0, records: [record('a', '1')] });
    const second = batch({ baseOffset: 1, records: [record('b', '2')] });
    for (let cut = 0; cut < second.length; cut++) {
      const parsed = read(Buffer.concat([first, second.subarray(0, cut)]));
      assert.deepEqual(
        parsed.records.map((r) => r.value),
        ['1'],
      );
      assert.equal(parsed.nextOffset, 1);
      assert.equal(parsed.neededBytes, undefined);
    }
  });

  it('says how many bytes the first batch needs where not even that one came whole', () => {
    const large = batch({ baseOffset: 3, records: [record('a', 'x'.repeat(1000))] });
    const parsed = read(large.subarray(0, 500), 3);
    assert.equal(parsed.neededBytes, large.length);
    assert.equal(parsed.nextOffset, 3);
  });

  it('advances over a batch that compaction emptied, and over records it took from the end', () => {
    const emptied = batch({ baseOffset: 5, records: [], lastOffsetDelta: 9 });
    assert.deepEqual(read(emptied, 5).records, []);
    assert.equal(read(emptied, 5).nextOffset, 15);
    const shortened = batch({ baseOffset: 15, records: [record('a', '1')], lastOffsetDelta: 4 });
    const parsed = read(Buffer.concat([emptied, shortened]), 5);
    assert.deepEqual(
      parsed.records.map((r) => r.offset),
      [15],
    );
    assert.equal(parsed.nextOffset, 20);
  });

  it('leaves out records before the offset asked for', () => {
    const set = batch({ baseOffset: 10, records: [record('a', '1'), record('b', '2'), record('c', '3')] });
    assert.deepEqual(values(set, 12), ['3']);
    assert.equal(read(set, 12).nextOffset, 13);
  });

  it('skips a whole batch that lies before the offset asked for and does not go back', () => {
    const set = batch({ baseOffset: 0, records: [record('a', '1')] });
    assert.deepEqual(values(set, 5), []);
    assert.equal(read(set, 5).nextOffset, 5);
  });

  it('takes the append time where the broker stamped the batch', () => {
    const set = batch({
      baseOffset: 0,
      attributes: ATTRIBUTE.logAppendTime,
      records: [record('a', '1', 50), record('b', '2', 70)],
    });
    assert.deepEqual(
      read(set).records.map((r) => r.timestampMs),
      [70, 70],
    );
  });

  it('refuses formats before 2', () => {
    const old = batch({ baseOffset: 0, records: [record('a', '1')] });
    old[AT.magic] = 1;
    assert.throws(() => read(old), /Expected record format 2 at offset 0, got 1/);
  });

  it('refuses a record that reaches past its batch, though the checksum fits', () => {
    const lying = batch({ baseOffset: 0, records: [record('a', 'value')] });
    lying[BATCH_HEADER_BYTES] = 0x7e; // the record's length as a varint
    assert.throws(() => read(withCrc(lying)), /says it has 63 bytes/);
    const endless = batch({ baseOffset: 0, records: [record('a', 'value')] });
    endless.fill(0xff, BATCH_HEADER_BYTES);
    assert.throws(() => read(withCrc(endless)), CorruptBatchError);
  });

  it('refuses a batch whose length field is smaller than a header', () => {
    const short = batch({ baseOffset: 0, records: [record('a', '1')] });
    short.writeInt32BE(10, AT.length);
    assert.throws(() => read(short), /at least 61 bytes/);
  });

  it('never reads outside its bytes or loops, whatever garbage comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (garbage, honest) => {
        const set = batch({ baseOffset: 0, records: [record('a', '1'), record('b', '2')] });
        set.set(garbage.subarray(0, set.length - BATCH_HEADER_BYTES), BATCH_HEADER_BYTES);
        try {
          assert.ok(read(honest ? withCrc(set) : Buffer.from(garbage)).nextOffset >= 0);
        } catch (error) {
          assert.ok(error instanceof CorruptBatchError, String(error));
        }
      }),
      { seed: 2, numRuns: 500 },
    );
  });

  it('holds 200,000 records without growing the stack', () => {
    const records = Array.from({ length: 200_000 }, () => record(null, null));
    const builder = new BatchBuilder();
    for (const r of records) builder.append(r.key, r.value, r.timestampMs);
    assert.ok(builder.count > 90_000);
    const sealed = builder.seal({ producerId: 1, producerEpoch: 0, baseSequence: 0, transactional: false });
    assert.equal(read(sealed).records.length, builder.count);
  });
});

describe('a batch builder', () => {
  it('says no before the broker would, but takes a first record of any size', () => {
    const builder = new BatchBuilder();
    const value = Buffer.alloc(400_000);
    assert.ok(builder.append(null, value, 0));
    assert.ok(builder.append(null, value, 0));
    assert.equal(builder.append(null, value, 0), false);
    assert.equal(builder.count, 2);
    assert.ok(builder.sizeBytes <= MAX_BATCH_BYTES);
    assert.ok(new BatchBuilder().append(null, Buffer.alloc(2_000_000), 0));
  });

  it('can be sealed again for another producer', () => {
    const builder = new BatchBuilder();
    builder.append(Buffer.from('k'), Buffer.from('v'), 5);
    for (const producerId of [1, 2]) {
      const bytes = builder.seal({ producerId, producerEpoch: 3, baseSequence: 9, transactional: true });
      assert.equal(bytes.readBigInt64BE(AT.producerId), BigInt(producerId));
      assert.equal(read(bytes).records.length, 1);
    }
  });
});

describe('compressed batches', () => {
  const records = Array.from({ length: 50 }, (_, i) => record(`key-${i}`, `value ${i % 7} `.repeat(i)));
  const plain = read(batch({ baseOffset: 100, records }), 100).records;

  const xerial = (blockBytes: number) => (body: Buffer) => {
    const chunks = [Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1])];
    for (let at = 0; at < body.length; at += blockBytes) {
      const block = Buffer.from(snappyCompress(body.subarray(at, at + blockBytes)));
      const size = Buffer.alloc(4);
      size.writeUInt32BE(block.length);
      chunks.push(size, block);
    }
    return Buffer.concat(chunks);
  };
  const codecs: [string, number, (body: Buffer) => Buffer][] = [
    ['gzip', 1, (b) => gzipSync(b)],
    ['snappy, one raw block', 2, (b) => Buffer.from(snappyCompress(b))],
    ['snappy, framed by Java', 2, xerial(1000)],
    ['lz4', 3, (b) => lz4Frame(b)],
    ['zstd', 4, (b) => zstdCompressSync(b)],
  ];
  for (const [name, codec, compress] of codecs) {
    it(`${name}: reads the same records`, () => {
      const set = batch({ baseOffset: 100, records, attributes: codec, compress });
      assert.deepEqual(read(set, 100).records, plain);
    });
    it(`${name}: bytes that do not uncompress are an error, not a crash`, () => {
      const compressBadly = (b: Buffer) => {
        const bytes = compress(b);
        return bytes.subarray(0, bytes.length >> 1);
      };
      const set = batch({ baseOffset: 100, records, attributes: codec, compress: compressBadly });
      assert.throws(() => read(set, 100), CorruptBatchError);
    });
  }

  it('names a codec that does not exist', () => {
    const set = batch({ baseOffset: 0, records, attributes: 7 });
    assert.throws(() => read(set), /got codec number 7/);
  });

  it('lz4: follows matches that overlap what they write', () => {
    // One literal 'a', then a match of 19 bytes one byte back, then 5 literals as the format demands.
    const block = Buffer.from([0x1f, 0x61, 1, 0, 0, 0x50, ...Buffer.from('bcdef')]);
    const header = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(block.length);
    const frame = Buffer.concat([header, size, block, Buffer.alloc(4)]);
    const set = batch({
      baseOffset: 0,
      records: [record(null, null)],
      attributes: 3,
      compress: () => frame,
    });
    const [view] = parseRecordSet(set, 0, []).batches;
    assert.equal(view!.bytes.toString(), `${'a'.repeat(20)}bcdef`);
  });
});

/** Stored blocks only: what a compressor does with bytes that do not shrink. */
function lz4Frame(body: Buffer): Buffer {
  const chunks: Buffer[] = [Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82])];
  for (let at = 0; at < body.length; at += 700) {
    const block = body.subarray(at, at + 700);
    const size = Buffer.alloc(4);
    size.writeUInt32LE((block.length | 0x80000000) >>> 0);
    chunks.push(size, block);
  }
  return Buffer.concat([...chunks, Buffer.alloc(4)]);
}

describe('aborted transactions', () => {
  const data = (baseOffset: number, producerId: number, value: string) =>
    batch({ baseOffset, producerId, transactional: true, records: [record(`p${producerId}`, value)] });

  it('tells where transactions ended, by whom and when', () => {
    const set = Buffer.concat([data(0, 1, 'a'), marker('commit', 1, 1), marker('abort', 2, 9)]);
    const { ends, batches } = parseRecordSet(set, 0, []);
    assert.deepEqual(
      ends.map(({ producerId, offset }) => [producerId, offset]),
      [
        [1, 1],
        [9, 2],
      ],
    );
    assert.ok(ends.every((end) => end.timestampMs === 1_000));
    assert.deepEqual(
      batches.map((b) => b.producerId),
      [1],
    );
    // what was read before is not told again
    assert.deepEqual(
      parseRecordSet(set, 2, []).ends.map((end) => end.offset),
      [2],
    );
  });

  it('hides a transaction up to its abort marker and shows the next one of the same producer', () => {
    const set = Buffer.concat([
      data(0, 1, 'aborted'),
      marker('abort', 1, 1),
      data(2, 1, 'kept'),
      marker('commit', 3, 1),
    ]);
    const parsed = read(set, 0, [{ producerId: 1, firstOffset: 0 }]);
    assert.deepEqual(
      parsed.records.map((r) => r.value),
      ['kept'],
    );
    assert.equal(parsed.nextOffset, 4);
  });

  it('hides overlapping aborted transactions in whatever order the broker lists them', () => {
    const set = Buffer.concat([
      data(0, 1, 'a1'),
      data(1, 2, 'a2'),
      data(2, 3, 'k3'),
      data(3, 1, 'a1'),
      marker('abort', 4, 2),
      data(5, 2, 'k2'),
      data(6, 1, 'a1'),
      marker('abort', 7, 1),
      data(8, 1, 'k1'),
      marker('commit', 9, 3),
      marker('commit', 10, 2),
      marker('commit', 11, 1),
    ]);
    const aborted = [
      { producerId: 1, firstOffset: 0 },
      { producerId: 2, firstOffset: 1 },
    ];
    assert.deepEqual(values(set, 0, aborted), ['k3', 'k2', 'k1']);
    assert.deepEqual(values(set, 0, aborted.toReversed()), ['k3', 'k2', 'k1']);
    // The fetch begins inside both: their first offsets lie before it.
    const inside = Buffer.concat([
      data(3, 1, 'a1'),
      marker('abort', 4, 2),
      data(5, 2, 'k2'),
      marker('abort', 6, 1),
    ]);
    assert.deepEqual(values(inside, 3, aborted.toReversed()), ['k2']);
  });

  it('hides two aborted transactions of one producer, and what lies between stays', () => {
    const set = Buffer.concat([
      data(0, 1, 'a'),
      marker('abort', 1, 1),
      data(2, 1, 'k'),
      marker('commit', 3, 1),
      data(4, 1, 'a'),
      marker('abort', 5, 1),
    ]);
    const aborted = [
      { producerId: 1, firstOffset: 4 },
      { producerId: 1, firstOffset: 0 },
    ];
    assert.deepEqual(values(set, 0, aborted), ['k']);
  });

  it('shows records outside transactions even of a producer id that aborts', () => {
    const plain = batch({ baseOffset: 1, producerId: 1, records: [record('p1', 'plain')] });
    const set = Buffer.concat([data(0, 1, 'a'), plain, marker('abort', 2, 1)]);
    assert.deepEqual(values(set, 0, [{ producerId: 1, firstOffset: 0 }]), ['plain']);
  });

  it('takes a key of four zero bytes for data', () => {
    const zero = { key: Buffer.alloc(4), value: Buffer.from('data'), timestampMs: 1 };
    const set = Buffer.concat([
      batch({ baseOffset: 0, producerId: 1, transactional: true, records: [zero] }),
      data(1, 1, 'a'),
      marker('abort', 2, 1),
      batch({ baseOffset: 3, records: [zero] }),
    ]);
    assert.deepEqual(values(set, 0, [{ producerId: 1, firstOffset: 0 }]), ['data']);
    assert.deepEqual(values(set, 0, []), ['data', 'a', 'data']);
  });

  it('agrees with a slow reading of random interleavings', () => {
    type Step = { producer: number; end: 'none' | 'abort' | 'commit' };
    const step: fc.Arbitrary<Step> = fc.record({
      producer: fc.integer({ min: 1, max: 4 }),
      end: fc.constantFrom('none', 'none', 'abort', 'commit'),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(), fc.nat(), (steps, cutSeed, shuffle) => {
        const batches: { bytes: Buffer; offset: number }[] = [];
        const open = new Map<number, { first: number; mine: string[] }>();
        const aborted: (AbortedTransaction & { last: number })[] = [];
        const hidden = new Set<string>();
        const all: { offset: number; value: string }[] = [];
        let offset = 0;
        const write = (bytes: Buffer) => batches.push({ bytes, offset: offset++ });
        const end = (producer: number, type: 'abort' | 'commit') => {
          const transaction = open.get(producer);
          if (!transaction) return;
          if (type === 'abort') {
            aborted.push({ producerId: producer, firstOffset: transaction.first, last: offset });
            for (const v of transaction.mine) hidden.add(v);
          }
          open.delete(producer);
          write(marker(type, offset, producer));
        };
        for (const { producer, end: type } of steps) {
          const value = `${producer}@${offset}`;
          const transaction = open.get(producer) ?? { first: offset, mine: [] };
          open.set(producer, transaction);
          transaction.mine.push(value);
          all.push({ offset, value });
          write(data(offset, producer, value));
          if (type !== 'none') end(producer, type);
        }
        for (const producer of [...open.keys()]) end(producer, producer % 2 ? 'abort' : 'commit');
        const from = batches.length === 0 ? 0 : cutSeed % batches.length;
        const listed = aborted
          .filter((a) => a.last >= from)
          .sort((a, b) => ((a.firstOffset * 31 + shuffle) % 7) - ((b.firstOffset * 31 + shuffle) % 7));
        const set = Buffer.concat(batches.filter((b) => b.offset >= from).map((b) => b.bytes));
        assert.deepEqual(
          values(set, from, listed),
          all.filter((r) => r.offset >= from && !hidden.has(r.value)).map((r) => r.value),
        );
      }),
      { seed: 3, numRuns: 300 },
    );
  });
});
