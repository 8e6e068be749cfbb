/** Conformance of the own data plane on a real broker: what a reader sees, beside plain kafkajs. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Transaction } from 'kafkajs';
import { OffsetOutOfRangeError } from '../src/index.ts';
import { Bench, clickRecord, item, readByTwin, readToEnd, text, until } from './harness.ts';

let bench: Bench;
before(async () => {
  bench = await Bench.start();
});
after(() => bench.stop());

const values = (records: { value: Buffer | null }[]) => records.map((r) => text(r.value));

describe('aborted transactions', () => {
  it('stay invisible, overlapping or not, from every fetch position', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const topic = physical('clicks');
    const producers = await Promise.all(
      [0, 1, 2].map((n) => bench.producer({ transactionalId: `${namespace}-${n}` })),
    );
    const send = (t: Transaction, value: string) =>
      t.send({ topic, messages: [{ partition: 0, key: 'k', value }] });
    const expected: { offset: number; value: string }[] = [];
    const sent = new Map<Transaction, { offset: number; value: string }[]>();
    const write = async (t: Transaction, value: string) => {
      const [answer] = await send(t, value);
      sent.set(t, [...(sent.get(t) ?? []), { offset: Number(answer!.baseOffset), value }]);
    };
    const end = async (t: Transaction, how: 'commit' | 'abort') => {
      await t[how]();
      if (how === 'commit') expected.push(...sent.get(t)!);
    };
    for (let round = 0; round < 3; round++) {
      const [a, b, c] = (await Promise.all(producers.map((p) => p.transaction()))) as [
        Transaction,
        Transaction,
        Transaction,
      ];
      await write(a, `a${round}`);
      await write(b, `b${round}`);
      await write(c, `c${round}`);
      await write(a, `A${round}`);
      await end(b, round === 1 ? 'commit' : 'abort');
      await write(c, `C${round}`);
      await end(a, round === 2 ? 'commit' : 'abort');
      await end(c, round === 0 ? 'commit' : 'abort');
    }
    expected.sort((x, y) => x.offset - y.offset);
    // Each transaction of three rounds ends with a marker, which the coordinator writes in its own time.
    const last = 3 * 5 + 3 * 3;
    await until('the last marker', async () => (await io.endOffsets('clicks'))[0]!.offset === last);

    const reader = await io.openReader();
    for (let from = 0; from <= last; from++)
      for (const maxBytesPerPartition of [1, 1 << 20]) {
        const records = await readToEnd(reader, io, 'clicks', [from], { maxBytesPerPartition });
        assert.deepEqual(
          records.map((r) => ({ offset: r.offset, value: text(r.value) })),
          expected.filter((e) => e.offset >= from),
          `from ${from} with ${maxBytesPerPartition} bytes`,
        );
      }
  });

  it('a record whose key is four zero bytes is data, also beside aborted ones', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const producer = await bench.producer({ transactionalId: `${namespace}-zero` });
    const send = async (value: string, how: 'commit' | 'abort') => {
      const t = await producer.transaction();
      await t.send({
        topic: physical('clicks'),
        messages: [{ partition: 0, key: Buffer.alloc(4), value }],
      });
      await t[how]();
    };
    await send('kept', 'commit');
    await send('dropped', 'abort');
    await send('kept too', 'commit');
    const records = await readToEnd(await io.openReader(), io, 'clicks');
    assert.deepEqual(values(records), ['kept', 'kept too']);
    assert.deepEqual(records[0]!.key, Buffer.alloc(4));
  });

  it('of an open transaction nothing is seen, and the position stays below the end', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const producer = await bench.producer({ transactionalId: `${namespace}-open` });
    const t = await producer.transaction();
    await t.send({ topic: physical('clicks'), messages: [{ partition: 0, value: 'open' }] });
    const reader = await io.openReader();
    await reader.assign([{ topic: 'clicks', partition: 0, offset: 0 }]);
    const [seen] = await until('an answer', () =>
      reader.poll({ maxWaitMs: 200 }).then((p) => p.length > 0 && p),
    );
    assert.deepEqual(seen!.records, []);
    assert.equal(seen!.nextOffset, 0);
    assert.equal(seen!.lastStableOffset, 0);
    assert.equal(seen!.highWatermark, 1);
    await t.commit();
    const part = await until('the record', async () =>
      (await reader.poll({ maxWaitMs: 200 })).find((p) => p.records.length > 0),
    );
    assert.deepEqual(values(part!.records), ['open']);
  });
});

describe('positions', () => {
  it('pass batches that hold only control records: read to the end, nothing left', async () => {
    const { io, namespace, physical } = await bench.space(['clicks']);
    const producer = await bench.producer({ transactionalId: `${namespace}-control` });
    const t = await producer.transaction();
    await t.send({ topic: physical('clicks'), messages: [{ partition: 0, value: 'x' }] });
    await t.abort();
    const reader = await io.openReader();
    await reader.assign([{ topic: 'clicks', partition: 0, offset: 0 }]);
    const part = await until('the end', async () =>
      (await reader.poll({ maxWaitMs: 200 })).find((p) => p.nextOffset === p.highWatermark),
    );
    assert.equal(part!.nextOffset, 2);
  });

  it('outside the log are an error that says what the log holds, and never a reset', async () => {
    const { io, physical } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    for (const value of ['0', '1', '2'])
      await writer.send([{ topic: 'clicks', key: 'k', valueBytes: Buffer.from(value) }]);
    await bench.admin.fetchTopicOffsets(physical('clicks')); // kafkajs deletes only in topics it has looked up
    await bench.admin.deleteTopicRecords({
      topic: physical('clicks'),
      partitions: [{ partition: 0, offset: '2' }],
    });
    const reader = await io.openReader();
    for (const offset of [0, 99]) {
      await reader.assign([{ topic: 'clicks', partition: 0, offset }]);
      await assert.rejects(
        until('an error', () => reader.poll({ maxWaitMs: 200 }).then(() => false)),
        (error) => {
          assert.ok(error instanceof OffsetOutOfRangeError);
          assert.match(error.message, new RegExp(`Offset ${offset} of partition 0 of .*which holds 2 to 3`));
          return true;
        },
      );
    }
    const records = await readToEnd(reader, io, 'clicks');
    assert.deepEqual(values(records), ['2'], 'the same reader goes on from an offset that is there');
  });

  it('-1 begins at the end and -2 at the earliest record', async () => {
    const { io } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await writer.send([{ topic: 'clicks', key: 'k', valueBytes: Buffer.from('old') }]);
    const reader = await io.openReader();
    await reader.assign([{ topic: 'clicks', partition: 0, offset: -1 }]);
    await writer.send([{ topic: 'clicks', key: 'k', valueBytes: Buffer.from('new') }]);
    const part = await until('the record', async () =>
      (await reader.poll({ maxWaitMs: 200 })).find((p) => p.records.length > 0),
    );
    assert.deepEqual(values(part!.records), ['new']);
    assert.deepEqual(values(await readToEnd(reader, io, 'clicks')), ['old', 'new']);
  });

  it('paused partitions give nothing until they are resumed', async () => {
    const { io } = await bench.space(['clicks'], { numPartitions: 2 });
    const writer = await io.openWriter();
    await writer.send(
      [0, 1].map((partition) => ({
        topic: 'clicks' as const,
        key: 'k',
        partition,
        valueBytes: Buffer.from(`${partition}`),
      })),
    );
    const reader = await io.openReader();
    const both = [0, 1].map((partition) => ({ topic: 'clicks' as const, partition, offset: 0 }));
    await reader.assign(both);
    reader.pause([both[0]!]);
    const seen = new Set<number>();
    await until('two empty answers of partition 1', async () => {
      let empty = 0;
      for (const p of await reader.poll({ maxWaitMs: 50 })) {
        seen.add(p.partition);
        if (p.records.length === 0) empty++;
      }
      return empty > 0;
    });
    assert.deepEqual([...seen], [1]);
    reader.resume([both[0]!]);
    await until('partition 0', async () =>
      (await reader.poll({ maxWaitMs: 50 })).some((p) => p.partition === 0 && p.records.length === 1),
    );
  });
});

describe('batches', () => {
  for (const codec of ['gzip', 'snappy', 'lz4', 'zstd'])
    it(`compressed with ${codec} by the broker read like uncompressed ones`, async () => {
      const { io, physical } = await bench.space(['clicks']);
      await bench.admin.alterConfigs({
        validateOnly: false,
        resources: [
          // kafkajs replaces the whole configuration, so the producer's times count from here on.
          { type: 2, name: physical('clicks'), configEntries: [{ name: 'compression.type', value: codec }] },
        ],
      });
      const writer = await io.openWriter();
      // The broker answers before its log goes by the new configuration.
      let probes = 0;
      await until('the configuration to be in force', async () => {
        await writer.send([{ topic: 'clicks', key: 'probe', valueBytes: null, timestampMs: 1 }]);
        const found = await readToEnd(await io.openReader(), io, 'clicks');
        probes = found.length;
        return found.at(-1)!.timestampMs === 1;
      });
      const records = Array.from({ length: 3_000 }, (_, i) => ({
        topic: 'clicks' as const,
        key: `key-${i % 10}`,
        valueBytes: i % 50 === 0 ? null : Buffer.from(`value ${i} `.repeat(1 + (i % 20))),
        timestampMs: 1_000 + i,
      }));
      await writer.send(records);
      const read = (await readToEnd(await io.openReader(), io, 'clicks')).slice(probes);
      assert.deepEqual(
        read.map((r) => [text(r.key), text(r.value)]),
        records.map((r) => [r.key, text(r.valueBytes)]),
      );
      assert.deepEqual(
        read.map((r) => r.timestampMs),
        records.map((r) => r.timestampMs),
      );
    });

  it('with very many records do not overflow the stack', async () => {
    const { io } = await bench.space(['items']);
    const writer = await io.openWriter();
    const count = 250_000;
    await writer.send(
      Array.from({ length: count }, () => ({ topic: 'items' as const, key: 'k', valueBytes: null })),
    );
    const read = await readToEnd(await io.openReader(), io, 'items', [], {
      maxBytesPerPartition: 16 << 20,
    });
    assert.equal(read.length, count);
    assert.equal(read.at(-1)!.offset, count - 1);
  });

  it('larger than the fetch size come whole, from each partition', async () => {
    const { io } = await bench.space(['clicks'], { numPartitions: 3 });
    const writer = await io.openWriter();
    const large = Buffer.alloc(700_000, 'x');
    const records = [0, 1, 2].flatMap((partition) =>
      [0, 1].map(() => ({ topic: 'clicks' as const, key: 'k', partition, valueBytes: large })),
    );
    await writer.send(records);
    const read = await readToEnd(await io.openReader(), io, 'clicks', [], { maxBytesPerPartition: 100 });
    assert.equal(read.length, 6);
    assert.ok(read.every((r) => r.value!.equals(large)));
  });

  it('that compaction emptied are passed, and the table holds what is left', async () => {
    const { io, physical } = await bench.space(['items']);
    await bench.admin.alterConfigs({
      validateOnly: false,
      resources: [
        // The broker's cleaner comes round every 15 s by default.
        { type: 4, name: '1', configEntries: [{ name: 'log.cleaner.backoff.ms', value: '500' }] },
        {
          type: 2,
          name: physical('items'),
          configEntries: [
            { name: 'cleanup.policy', value: 'compact' },
            { name: 'min.cleanable.dirty.ratio', value: '0.0' },
            { name: 'delete.retention.ms', value: '0' },
            { name: 'segment.ms', value: '100' },
          ],
        },
      ],
    });
    const [first, second] = [await io.openWriter(), await io.openWriter()];
    // The last batch of a producer is kept without records for its sequence number: two producers give such batches.
    await first.send([1, 2, 3].map((n) => ({ topic: 'items', key: `x${n}`, value: item(`x${n}`, 'old') })));
    await second.send([1, 2, 3].map((n) => ({ topic: 'items', key: `x${n}`, value: null })));
    await second.send([{ topic: 'items', key: 'y', value: item('y', 'kept') }]);
    const reader = await io.openReader();
    let roll = 0;
    const read = await until('the cleaner', async () => {
      // Only closed segments are cleaned: a later record closes the one before.
      await second.send([{ topic: 'items', key: 'roll', value: item('roll', `${roll++}`) }]);
      const left = await readToEnd(reader, io, 'items');
      return left.every((r) => !text(r.key)!.startsWith('x')) && left;
    });
    assert.equal(read.filter((r) => text(r.key) === 'y').length, 1);
    for (let from = 0; from <= 7; from++) {
      const records = await readToEnd(reader, io, 'items', [from]);
      assert.ok(records.every((r) => r.offset >= from && !text(r.key)!.startsWith('x')));
    }
    const rows = new Map<string, string | undefined>();
    const table = await io.openTable({
      topic: 'items',
      onRecord: (r) => rows.set(r.key, r.value?.title),
      onError: (error) => assert.fail(String(error)),
    });
    await table.readToEnd();
    assert.equal(rows.get('y'), 'kept');
    assert.ok(![...rows.keys()].some((k) => k.startsWith('x')));
  });
});

describe('the own data plane and plain kafkajs', () => {
  it('write to the same partitions and read the same records', async () => {
    const { io, physical } = await bench.space(['exposures', 'clicks'], { numPartitions: 5 });
    const keys = Array.from({ length: 200 }, (_, i) => `user-${i}-${'ä€𝄞'.slice(0, i % 4)}`);
    const producer = await bench.producer();
    await producer.send({
      topic: physical('clicks'),
      messages: keys.map((key, i) => ({ key, value: `${i}` })),
    });
    const writer = await io.openWriter();
    await writer.send(
      keys.map((key, i) => ({ topic: 'exposures' as const, key, valueBytes: Buffer.from(`${i}`) })),
    );
    const reader = await io.openReader();
    const plain = (r: { partition: number; key: Buffer | null; value: Buffer | null }) => ({
      partition: r.partition,
      key: text(r.key),
      value: text(r.value),
    });
    const ofTwin = await readToEnd(reader, io, 'clicks');
    const own = await readToEnd(reader, io, 'exposures');
    assert.deepEqual(own.map(plain), ofTwin.map(plain));
    const readBySlow = await readByTwin(bench, physical('exposures'));
    assert.deepEqual(
      readBySlow.map(({ partition, key, value }) => ({ partition, key, value })),
      own.map(plain),
    );
  });
});

describe('readers, tables, consumers and writers that were closed', () => {
  it('are not held by the client that goes on', async () => {
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const { io, namespace } = await bench.space(['clicks', 'items']);
    const openAndClose = async (): Promise<[string, WeakRef<object>][]> => {
      const reader = await io.openReader();
      await reader.assign([{ topic: 'clicks', partition: 0, offset: 0 }]);
      await reader.poll({ maxWaitMs: 1 });
      const writer = await io.openTransactionalWriter(`${namespace}-closed`);
      await writer.init();
      await writer.commit({ records: [clickRecord(1)] });
      const onError = (error: unknown) => assert.fail(String(error));
      const table = await io.openTable({ topic: 'items', onRecord: () => {}, onError });
      const consumer = await io.consume({
        groupId: `${namespace}-closed`,
        topics: ['clicks'],
        from: 'earliest',
        handler: { onRecords: async () => {} },
        onError,
      });
      await Promise.all([reader.close(), writer.close(), table.close(), consumer.stop()]);
      return Object.entries({ reader, writer, table, consumer }).map(([n, part]) => [n, new WeakRef(part)]);
    };
    const closed = await openAndClose();
    await until('their memory to be free', () => {
      collectGarbage();
      return closed.every(([, part]) => part.deref() === undefined);
    });
  });
});
