/** The reader against a cluster that the test moves: leaders that change, brokers that go away, answers that are cut off. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LeaderAwayError } from '../src/brokers.ts';
import { WireReader, WireWriter } from '../src/data-plane/wire.ts';
import type { Broker, ProtocolCall } from '../src/kafkajs-internals.ts';
import { PartitionReader, type ReaderBrokers } from '../src/log-reader.ts';
import { LogWriter } from '../src/log-writer.ts';
import { CorruptBatchError, OffsetOutOfRangeError } from '../src/ports.ts';
import { TopicNames } from '../src/topic-names.ts';
import { batch, record } from './batches.ts';

const NOT_LEADER = 6;
const OUT_OF_RANGE = 1;

interface Wish {
  partition: number;
  offset: number;
  maxBytes: number;
}
interface Answer {
  errorCode?: number;
  set?: Buffer;
  end?: number;
}

/** Brokers 1 and 2; each test says who leads which partition and what a broker answers. */
class FakeCluster implements ReaderBrokers {
  leaders = new Map<number, number>();
  /** What metadata said last: changes only on refresh. */
  known = new Map<number, number>();
  away = new Set<number>();
  asked: { node: number; wishes: Wish[] }[] = [];
  tried = new Map<number, number>();
  refreshes = 0;
  answer: (node: number, wish: Wish) => Answer = () => ({});

  async use(): Promise<void> {
    this.known = new Map(this.leaders);
  }
  async refresh(): Promise<void> {
    this.refreshes++;
    this.known = new Map(this.leaders);
  }
  leaderOf(_topic: string, partition: number): number {
    const leader = this.known.get(partition);
    if (leader === undefined) throw new LeaderAwayError('no leader');
    return leader;
  }
  async listOffsets(
    _topic: string,
    partitions: readonly number[],
    at: -1 | -2,
  ): Promise<Map<number, number>> {
    return new Map(partitions.map((p) => [p, at === -2 ? 3 : 9]));
  }
  async close(): Promise<void> {}
  async broker(node: number): Promise<Broker> {
    const send = async <T>(call: ProtocolCall<T>): Promise<T> => {
      const { buffer } = (await call.request.encode()) as { buffer: Buffer };
      this.tried.set(node, (this.tried.get(node) ?? 0) + 1);
      if (this.away.has(node))
        throw Object.assign(new Error('Closed'), { name: 'KafkaJSConnectionClosedError' });
      const wishes = wishesOf(buffer);
      this.asked.push({ node, wishes });
      await new Promise(setImmediate);
      return call.response.parse(await call.response.decode(answerTo(wishes, (w) => this.answer(node, w))));
    };
    return { nodeId: node, connectionPool: { send } } as unknown as Broker;
  }
}

function wishesOf(request: Buffer): Wish[] {
  const body = new WireReader(request);
  for (let i = 0; i < 4; i++) body.int32();
  body.int8();
  return body
    .array(() => {
      body.string();
      return body.array(() => ({ partition: body.int32(), offset: body.int64(), maxBytes: body.int32() }));
    })
    .flat();
}

function answerTo(wishes: readonly Wish[], answer: (wish: Wish) => Answer): Buffer {
  const body = new WireWriter().int32(0);
  body.array([0], () => {
    body.string('ns.clicks').array(wishes, (wish) => {
      const { errorCode = 0, set = Buffer.alloc(0), end = wish.offset } = answer(wish);
      body.int32(wish.partition).int16(errorCode).int64(end).int64(end).int32(0).int32(set.length);
      for (const byte of set) body.int8((byte << 24) >> 24);
    });
  });
  return body.bytes();
}

const log = new LogWriter(
  () => {},
  () => 0,
);
async function reading(leaders: Record<number, number>) {
  const cluster = new FakeCluster();
  cluster.leaders = new Map(Object.entries(leaders).map(([p, node]) => [Number(p), node]));
  const reader = new PartitionReader(cluster, new TopicNames('ns'), log);
  const assign = (offset: number, partitions = [...cluster.leaders.keys()]) =>
    reader.assign(partitions.map((partition) => ({ topic: 'clicks', partition, offset })));
  /** Polls until something with records came, or the time is up. */
  const next = async (tries = 500) => {
    for (let i = 0; i < tries; i++) {
      const parts = (await reader.poll({ maxWaitMs: 20 })).filter((p) => p.records.length > 0);
      if (parts.length > 0) return parts;
    }
    throw new Error('nothing came');
  };
  return { cluster, reader, assign, next };
}
const one = (offset: number, value = `${offset}`) =>
  batch({ baseOffset: offset, records: [record('k', value)] });
/** A log of offsets 0 to 9 with one record in each batch. */
const logAt = (offset: number): Answer => (offset < 10 ? { set: one(offset), end: 10 } : { end: 10 });

describe('the log reader', () => {
  it('follows a leader that moved, from the same offset', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1 });
    cluster.answer = (node, { offset }) =>
      node === cluster.leaders.get(0) ? logAt(offset) : { errorCode: NOT_LEADER };
    await assign(4);
    assert.equal((await next())[0]!.records[0]!.offset, 4);
    cluster.leaders.set(0, 2);
    const offsets = [];
    while (offsets.length < 5) offsets.push((await next())[0]!.records[0]!.offset);
    assert.deepEqual(offsets, [5, 6, 7, 8, 9]);
    assert.ok(cluster.refreshes > 0);
    await reader.close();
  });

  it('waits for a broker that is away and does not lose its place', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1 });
    cluster.answer = (_node, { offset }) => logAt(offset);
    cluster.away.add(1);
    await assign(7);
    assert.deepEqual(await reader.poll({ maxWaitMs: 120 }), []);
    cluster.away.delete(1);
    assert.equal((await next())[0]!.records[0]!.offset, 7);
    await reader.close();
  });

  it('waits while a partition has no leader', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1 });
    cluster.answer = (_node, { offset }) => logAt(offset);
    await assign(0);
    await next();
    cluster.known.clear();
    cluster.leaders.clear();
    await reader.poll({ maxWaitMs: 20 });
    cluster.leaders.set(0, 2);
    const offsets: number[] = [];
    while (offsets.length < 3) offsets.push((await next())[0]!.records[0]!.offset);
    assert.deepEqual(
      offsets,
      offsets.map((_, i) => offsets[0]! + i),
    );
    await reader.close();
  });

  it('does not let one broker that is away hold up another', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1, 1: 2 });
    cluster.away.add(1);
    cluster.answer = (_node, { offset }) => logAt(offset);
    await assign(0);
    const offsets: number[] = [];
    while (offsets.length < 10)
      for (const part of await next()) {
        assert.equal(part.partition, 1);
        offsets.push(part.records[0]!.offset);
      }
    assert.deepEqual(offsets, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const ofTheOther = cluster.asked.filter((a) => a.node === 2);
    assert.ok(ofTheOther.length >= 10);
    assert.ok(cluster.tried.get(1)! < 10, 'the broker that is away is asked less and less often');
    await reader.close();
  });

  it('one partition with an error does not hold up the others of the same answer', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1, 1: 1 });
    cluster.answer = (_node, { partition, offset }) =>
      partition === 0 ? { errorCode: NOT_LEADER } : logAt(offset);
    await assign(0);
    for (let offset = 0; offset < 10; offset++) {
      const [part] = await next();
      assert.deepEqual([part!.partition, part!.records[0]!.offset], [1, offset]);
    }
    await reader.close();
  });

  it('does not keep an answer in memory for a small part of it', async () => {
    const { cluster, assign, next, reader } = await reading({ 0: 1, 1: 1 });
    const values = ['small', 'large'.repeat(20_000)];
    cluster.answer = (_node, { partition, offset }) =>
      offset === 0 ? { set: one(0, values[partition]), end: 1 } : { end: 1 };
    await assign(0);
    const parts = await next();
    const [small, large] = [0, 1].map((p) => parts.find(({ partition }) => partition === p)!.records[0]!);
    assert.deepEqual(
      [small, large].map((r) => r!.value!.toString()),
      values,
    );
    assert.notEqual(small!.value!.buffer, large!.value!.buffer);
    await reader.close();
  });

  it('asks for more where not even one batch came whole', async () => {
    const { cluster, assign, reader } = await reading({ 0: 1 });
    const large = one(0, 'x'.repeat(5_000));
    cluster.answer = (_node, { offset, maxBytes }) =>
      offset === 0 ? { set: large.subarray(0, Math.min(maxBytes, large.length)), end: 1 } : { end: 1 };
    await assign(0);
    const parts = await (async () => {
      for (;;) {
        const got = await reader.poll({ maxWaitMs: 20, maxBytesPerPartition: 100 });
        if (got.some((p) => p.records.length > 0)) return got;
      }
    })();
    assert.equal(parts[0]!.records[0]!.value!.length, 5_000);
    assert.equal(cluster.asked[1]!.wishes[0]!.maxBytes, large.length);
    await reader.close();
  });

  it('says that a partition is at its end, and when it asked', async () => {
    const { cluster, assign, reader } = await reading({ 0: 1 });
    cluster.answer = () => ({ end: 10 });
    await assign(10);
    const before = performance.now();
    let parts = await reader.poll({ maxWaitMs: 20 });
    while (parts.length === 0) parts = await reader.poll({ maxWaitMs: 20 });
    const [part] = parts;
    assert.deepEqual([part!.records.length, part!.nextOffset, part!.highWatermark], [0, 10, 10]);
    assert.ok(part!.sentAtMs >= before && part!.sentAtMs <= performance.now());
    await reader.close();
  });

  it('asks again also where its pause ends while it is looked at', { timeout: 60_000 }, async (t) => {
    const { cluster, assign, reader } = await reading({ 0: 1 });
    cluster.answer = (_node, { offset }) => logAt(offset);
    // Each look at the clock is a millisecond after the one before, as on a machine that is busy.
    let nowMs = 0;
    t.mock.method(performance, 'now', () => nowMs++);
    await assign(0);
    const offsets: number[] = [];
    while (offsets.length < 10)
      for (const { records } of await reader.poll({ maxWaitMs: 600_000 }))
        offsets.push(...records.map(({ offset }) => offset));
    assert.deepEqual(offsets, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    await reader.close();
  });

  it('assigns nothing once it was told to stop while leaders were asked where their logs begin', async () => {
    const { cluster, reader } = await reading({ 0: 1 });
    const asked = Promise.withResolvers<void>();
    const mayAnswer = Promise.withResolvers<void>();
    cluster.listOffsets = async () => {
      asked.resolve();
      await mayAnswer.promise;
      return new Map([[0, 3]]);
    };
    const stopping = new AbortController();
    const position = { topic: 'clicks', partition: 0 } as const;
    const assigned = reader.assign([{ ...position, offset: -2 }], { signal: stopping.signal });
    await asked.promise;
    stopping.abort();
    mayAnswer.resolve();
    await assigned;
    assert.deepEqual(reader.positions([position]), []);
    await reader.close();
  });

  it('leaves out a partition that got nothing only because the answer was full', async () => {
    const { cluster, assign, reader, next } = await reading({ 0: 1, 1: 1 });
    cluster.answer = (_node, { partition, offset }) => (partition === 0 ? logAt(offset) : { end: 10 });
    await assign(0);
    for (const part of await next()) assert.equal(part.partition, 0);
    await reader.close();
  });

  it('asks a paused partition nothing, and keeps what came before', async () => {
    const { cluster, assign, reader, next } = await reading({ 0: 1, 1: 1 });
    cluster.answer = (_node, { offset }) => logAt(offset);
    await assign(0);
    await next();
    reader.pause([{ topic: 'clicks', partition: 0 }]);
    const asked = cluster.asked.length;
    for (let i = 0; i < 5; i++) for (const part of await next()) assert.equal(part.partition, 1);
    const wished = cluster.asked.slice(asked + 1).flatMap((a) => a.wishes);
    assert.ok(wished.length > 0 && wished.every((w) => w.partition === 1));
    reader.resume([{ topic: 'clicks', partition: 0 }]);
    let offset: number | undefined;
    while (offset === undefined) offset = (await next()).find((p) => p.partition === 0)?.records[0]?.offset;
    assert.equal(offset, 1);
    await reader.close();
  });

  it('gives nothing of a partition that was assigned anew while the answer was on its way', async () => {
    const { cluster, assign, reader, next } = await reading({ 0: 1 });
    cluster.answer = (_node, { offset }) => logAt(offset);
    await assign(0);
    await next(); // the next request has left by now, at offset 1
    await assign(8);
    assert.equal((await next())[0]!.records[0]!.offset, 8);
    reader.unassign([{ topic: 'clicks', partition: 0 }]);
    assert.deepEqual(await reader.poll({ maxWaitMs: 5 }), []);
    await reader.close();
  });

  it('throws what is not in range or corrupt, once each time it asks, and goes on elsewhere', async () => {
    const { cluster, assign, reader, next } = await reading({ 0: 1 });
    const corrupt = one(5);
    corrupt[corrupt.length - 1]! ^= 1;
    cluster.answer = (_node, { offset }) =>
      offset === 99 ? { errorCode: OUT_OF_RANGE } : offset === 5 ? { set: corrupt, end: 10 } : logAt(offset);
    for (const [offset, kind] of [
      [99, OffsetOutOfRangeError],
      [5, CorruptBatchError],
    ] as const) {
      await assign(offset);
      await assert.rejects(next(), kind);
      await assert.rejects(next(), kind);
    }
    await assign(99);
    await assert.rejects(next(), (error) => {
      assert.ok(error instanceof OffsetOutOfRangeError);
      assert.match(error.message, /Offset 99 of partition 0 of ns\.clicks .* holds 3 to 9/);
      assert.deepEqual(error.at, { topic: 'clicks', partition: 0 });
      return true;
    });
    await assign(6);
    assert.equal((await next())[0]!.records[0]!.offset, 6);
    await reader.close();
  });

  it('ends a poll when told to', async () => {
    const { assign, reader } = await reading({ 0: 1 });
    await assign(0, []);
    const stop = new AbortController();
    const polled = reader.poll({ maxWaitMs: 60_000, signal: stop.signal });
    stop.abort();
    assert.deepEqual(await polled, []);
    await reader.close();
    assert.deepEqual(await reader.poll({ maxWaitMs: 60_000 }), []);
  });

  it('refuses to pause what it was not given', async () => {
    const { reader } = await reading({ 0: 1 });
    assert.throws(
      () => reader.pause([{ topic: 'clicks', partition: 3 }]),
      /Partition 3 of clicks is not assigned/,
    );
  });
});
