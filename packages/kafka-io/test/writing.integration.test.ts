/** Conformance of writers on a real broker: idempotence, transactions, fencing, unknown outcomes, committed offsets. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { FencedError, type KafkaIo, RecordTooLargeError, TransactionFailedError } from '../src/index.ts';
import { Bench, click, clickRecord, readToEnd, text, until } from './harness.ts';
import { API, asOldBroker, loseAnswers, watchRequests } from './lost-answers.ts';

let bench: Bench;
before(async () => {
  bench = await Bench.start();
});
after(() => bench.stop());

const GROUP = 'g';
const position = (offset: number, metadata = '') => ({
  topic: 'exposures' as const,
  partition: 0,
  offset,
  metadata,
});
const offsets = (offset: number, metadata = '') => ({
  groupId: GROUP,
  positions: [position(offset, metadata)],
});
const committed = async (io: KafkaIo) => (await io.committed(GROUP, [position(0)]))[0]!;
const raw = (value: string, partition = 0) => ({
  topic: 'clicks' as const,
  key: 'k',
  partition,
  valueBytes: Buffer.from(value),
});
const read = async (io: KafkaIo) =>
  (await readToEnd(await io.openReader(), io, 'clicks')).map((r) => text(r.value));

describe('a record writer', () => {
  it('keeps a batch once when the answer to it was lost', async () => {
    const { io } = await bench.space(['clicks'], { numPartitions: 2 });
    const writer = await io.openWriter();
    await writer.send([raw('before', 0), raw('before', 1)]);
    const lost = loseAnswers(API.produce, { count: 2, carriedOut: true });
    try {
      await writer.send([raw('once', 0), raw('once', 1)]);
    } finally {
      lost.restore();
    }
    assert.equal(lost.hits(), 2);
    await writer.send([raw('after', 0), raw('after', 1)]);
    assert.deepEqual(await read(io), ['before', 'once', 'after', 'before', 'once', 'after']);
  });

  it('keeps the order of concurrent sends', async () => {
    const { io } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await Promise.all(Array.from({ length: 20 }, (_, i) => writer.send([raw(`${i}`)])));
    assert.deepEqual(
      await read(io),
      Array.from({ length: 20 }, (_, i) => `${i}`),
    );
  });

  it('splits what is more than a batch may hold', async () => {
    const { io } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    const large = 'x'.repeat(300_000);
    await writer.send(Array.from({ length: 10 }, (_, i) => raw(`${i}${large}`)));
    assert.deepEqual(
      (await read(io)).map((v) => v![0]),
      [...'0123456789'],
    );
  });

  it('names a record that the broker does not take, and goes on with the next', async () => {
    const { io } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    await assert.rejects(writer.send([raw('x'.repeat(2_000_000))]), (error) => {
      assert.ok(error instanceof RecordTooLargeError);
      assert.match(error.message, /takes no batch of 2000\d+ bytes .* max\.message\.bytes/);
      return true;
    });
    await writer.send([raw('small')]);
    assert.deepEqual(await read(io), ['small']);
  });

  it('refuses a value that does not fit the schema and names the field', async () => {
    const { io } = await bench.space(['clicks']);
    const writer = await io.openWriter();
    const bad = { ...click(1), eventTimeMs: 'soon' as unknown as number };
    await assert.rejects(writer.send([{ topic: 'clicks', key: 'u1', value: bad }]), /eventTimeMs = "soon"/);
    assert.deepEqual(await read(io), []);
  });

  it('writes tombstones', async () => {
    const { io } = await bench.space(['items']);
    const writer = await io.openWriter();
    await writer.send([{ topic: 'items', key: 'x', value: null }]);
    const [record] = await readToEnd(await io.openReader(), io, 'items');
    assert.equal(record!.value, null);
    assert.deepEqual(await io.decode('items', record!), {
      topic: 'items',
      partition: 0,
      offset: 0,
      timestampMs: record!.timestampMs,
      key: 'x',
      value: null,
    });
  });
});

for (const version of [2, 1] as const)
  describe(`a transaction of version ${version}`, () => {
    let hidden: { restore(): void } | undefined;
    before(() => {
      if (version === 1) hidden = asOldBroker();
    });
    after(() => hidden?.restore());

    it('makes records and offsets visible together, with metadata', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures'], { numPartitions: 3 });
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      assert.deepEqual(await committed(io), position(-1));
      await writer.commit({
        records: [clickRecord(1), clickRecord(2), clickRecord(3)],
        offsets: offsets(7, 'W=5,from=3'),
      });
      assert.deepEqual(await committed(io), position(7, 'W=5,from=3'));
      const seen = await readToEnd(await io.openReader(), io, 'clicks');
      const users = await Promise.all(seen.map(async (r) => (await io.decode('clicks', r)).value!.userId));
      assert.deepEqual(users.sort(), ['u1', 'u2', 'u3']);
    });

    it('needs the bytes of a block until it says that they are copied', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      const bytes = Buffer.from('k1firstk2second');
      const index = { keyStart: [0, 7], keyLength: [2, 2], valueStart: [2, 9], valueEnd: [7, 15] };
      let copies = 0;
      const copied = (): void => {
        copies++;
        bytes.fill('x');
      };
      const block = { topic: 'clicks' as const, partition: 0, bytes, count: 2, ...index, copied };
      await writer.commit({ records: [], blocks: [block], offsets: offsets(1) });
      assert.equal(copies, 1);
      assert.deepEqual(await read(io), ['first', 'second']);
    });

    it('asks only for what its version needs', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      const watched = watchRequests(Object.values(API));
      try {
        await writer.commit({ records: [raw('a')], offsets: offsets(1) });
      } finally {
        watched.restore();
      }
      // What is not over yet in the broker is asked for again, so kinds count and not how often.
      const asked = new Set(watched.apiKeys());
      const { produce, addPartitionsToTxn, addOffsetsToTxn, txnOffsetCommit, endTxn } = API;
      const three = [produce, txnOffsetCommit, endTxn];
      assert.deepEqual(
        asked,
        new Set(version === 2 ? three : [...three, addPartitionsToTxn, addOffsetsToTxn]),
      );
      assert.deepEqual(await read(io), ['a']);
    });

    it('with nothing but offsets follows another at once, again and again', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      for (let i = 0; i < 30; i++) {
        await writer.commit({ records: [], offsets: offsets(i) });
        // The guard: an answer of before this commit would be a step back.
        assert.equal((await committed(io)).offset, i);
      }
      await writer.commit({ records: [] });
      assert.equal((await committed(io)).offset, 29);
    });

    it('reads its own offsets at once after a commit, 60 rounds, also from another client', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const other = await bench.connect({ namespace });
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      for (let i = 0; i < 60; i++) {
        await writer.commit({ records: [raw(`${i}`)], offsets: offsets(i) });
        assert.equal((await committed(i % 2 ? io : other)).offset, i);
      }
    });

    it('of an older owner is fenced by init of a newer one', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const [zombie, owner] = await Promise.all(
        [0, 0].map(() => io.openTransactionalWriter(`${namespace}-0`)),
      );
      await zombie!.init();
      await zombie!.commit({ records: [raw('first')], offsets: offsets(1) });
      await owner!.init();
      await assert.rejects(zombie!.commit({ records: [raw('zombie')], offsets: offsets(2) }), (error) => {
        assert.ok(error instanceof FencedError);
        assert.match(error.message, new RegExp(`newer owner took over the transactional id ${namespace}-0`));
        return true;
      });
      await assert.rejects(zombie!.commit({ records: [], offsets: offsets(3) }), TransactionFailedError);
      await owner!.commit({ records: [raw('owner')], offsets: offsets(2) });
      assert.deepEqual(await read(io), ['first', 'owner']);
      assert.equal((await committed(io)).offset, 2);
      await zombie!.init();
      await assert.rejects(owner!.commit({ records: [raw('was owner')] }), FencedError);
    });

    it('with offsets alone is fenced too', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const [zombie, owner] = await Promise.all(
        [0, 0].map(() => io.openTransactionalWriter(`${namespace}-0`)),
      );
      await zombie!.init();
      await owner!.init();
      await assert.rejects(zombie!.commit({ records: [], offsets: offsets(2) }), FencedError);
      assert.equal((await committed(io)).offset, -1);
    });

    for (const carriedOut of [true, false])
      it(`whose commit got no answer ${carriedOut ? 'but was done' : 'and was not done'}: init settles it, the offsets tell`, async () => {
        const { io, namespace } = await bench.space(['clicks', 'exposures']);
        const writer = await io.openTransactionalWriter(`${namespace}-0`);
        await writer.init();
        await writer.commit({ records: [raw('a')], offsets: offsets(1) });
        const lost = loseAnswers(API.endTxn, { count: 1, carriedOut });
        try {
          await assert.rejects(writer.commit({ records: [raw('b')], offsets: offsets(2) }), (error) => {
            assert.ok(error instanceof TransactionFailedError && !(error instanceof FencedError));
            assert.match(error.message, /unknown outcome.*Call init/);
            return true;
          });
        } finally {
          lost.restore();
        }
        await assert.rejects(writer.commit({ records: [raw('c')] }), /not ready: call init/);
        await writer.init();
        assert.equal((await committed(io)).offset, carriedOut ? 2 : 1);
        await writer.commit({ records: [raw('d')], offsets: offsets(3) });
        assert.deepEqual(await read(io), carriedOut ? ['a', 'b', 'd'] : ['a', 'd']);
      });

    it('survives lost answers to everything but its end, and writes once', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      const kinds =
        version === 2
          ? [API.produce, API.txnOffsetCommit, API.produce, API.txnOffsetCommit]
          : [API.addPartitionsToTxn, API.produce, API.addOffsetsToTxn, API.txnOffsetCommit];
      for (const [i, kind] of kinds.entries()) {
        const lost = loseAnswers(kind, { count: 1, carriedOut: i === 0 || i === 3 });
        try {
          await writer.commit({ records: [raw(`${i}`)], offsets: offsets(i) });
        } finally {
          lost.restore();
        }
        assert.equal(lost.hits(), 1);
      }
      assert.deepEqual(await read(io), ['0', '1', '2', '3']);
      assert.equal((await committed(io)).offset, 3);
    });

    it('that stays open keeps its offsets unsettled until the next owner fences it', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const dead = await io.openTransactionalWriter(`${namespace}-0`);
      await dead.init();
      await dead.commit({ records: [raw('a')], offsets: offsets(1) });
      const lost = loseAnswers(API.endTxn, { count: 1, carriedOut: false });
      await assert.rejects(dead.commit({ records: [raw('b')], offsets: offsets(2) }), TransactionFailedError);
      lost.restore();
      let answer: number | undefined;
      const asked = committed(io).then((p) => {
        answer = p.offset;
      });
      const owner = await io.openTransactionalWriter(`${namespace}-0`);
      assert.equal(answer, undefined, 'no answer while a transaction on these offsets is pending');
      await owner.init();
      await asked;
      assert.equal(answer, 1);
      assert.deepEqual(await read(io), ['a']);
    });

    it('with a record too large fails, and the next owner starts clean', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      await assert.rejects(
        writer.commit({ records: [raw('ok'), raw('x'.repeat(2_000_000))], offsets: offsets(1) }),
        (error) => error instanceof TransactionFailedError && error.cause instanceof RecordTooLargeError,
      );
      await writer.init();
      await writer.commit({ records: [raw('next')], offsets: offsets(1) });
      assert.deepEqual(await read(io), ['next']);
    });

    it('with a value that does not fit sends nothing and stays usable', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures']);
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      const bad = { ...click(1), actionId: 5 as unknown as string };
      await assert.rejects(
        writer.commit({ records: [raw('x'), { topic: 'clicks', key: 'u1', value: bad }] }),
        /actionId = 5/,
      );
      await writer.commit({ records: [raw('y')] });
      assert.deepEqual(await read(io), ['y']);
    });

    it('of several megabytes over several partitions arrives whole and in order', async () => {
      const { io, namespace } = await bench.space(['clicks', 'exposures'], { numPartitions: 4 });
      const writer = await io.openTransactionalWriter(`${namespace}-0`);
      await writer.init();
      const records = Array.from({ length: 12_000 }, (_, i) => raw(`${i} ${'x'.repeat(1_000)}`, i % 4));
      await writer.commit({ records });
      const values = await read(io);
      assert.equal(values.length, records.length);
      for (let p = 0; p < 4; p++) {
        const mine = values.slice(p * 3_000, (p + 1) * 3_000).map((v) => Number(v!.split(' ')[0]));
        assert.deepEqual(
          mine,
          Array.from({ length: 3_000 }, (_, i) => i * 4 + p),
        );
      }
    });
  });

describe('commits under load', () => {
  it('of writers side by side do not disturb each other', async () => {
    const { io, namespace } = await bench.space(['clicks', 'exposures'], { numPartitions: 4 });
    const reader = await io.openReader();
    await Promise.all(
      [0, 1, 2, 3].map(async (p) => {
        const writer = await io.openTransactionalWriter(`${namespace}-${p}`);
        await writer.init();
        for (let i = 0; i < 10; i++)
          await writer.commit({
            records: [raw(`${p}:${i}`, p)],
            offsets: { groupId: GROUP, positions: [{ topic: 'exposures', partition: p, offset: i }] },
          });
      }),
    );
    const all = await until('all', async () => {
      const records = await readToEnd(reader, io, 'clicks');
      return records.length === 40 && records;
    });
    for (const r of all) assert.equal(text(r.value)!.split(':')[0], `${r.partition}`);
    const done = await io.committed(
      GROUP,
      [0, 1, 2, 3].map((partition) => ({ topic: 'exposures', partition })),
    );
    assert.ok(done.every((p) => p.offset === 9));
  });
});
