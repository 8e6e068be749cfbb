/** What only transactions of version 2 have (KIP-890): an epoch for each, and errors that ask for an abort. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { WireReader } from '../src/data-plane/wire.ts';
import { FencedError, type KafkaIo, TransactionFailedError } from '../src/index.ts';
import { Bench, readToEnd, text, until } from './harness.ts';
import { API, askForAbort, asOldBroker, watchRequests } from './lost-answers.ts';

let bench: Bench;
before(async () => {
  bench = await Bench.start();
});
after(() => bench.stop());

const GROUP = 'g';
const position = (offset: number) => ({ topic: 'exposures' as const, partition: 0, offset });
const offsets = (offset: number) => ({ groupId: GROUP, positions: [position(offset)] });
const committed = async (io: KafkaIo) => (await io.committed(GROUP, [position(0)]))[0]!;
const raw = (value: string) => ({
  topic: 'clicks' as const,
  key: 'k',
  partition: 0,
  valueBytes: Buffer.from(value),
});
const end = async (io: KafkaIo) => (await io.endOffsets('clicks'))[0]!.offset;
const read = async (io: KafkaIo) =>
  (await readToEnd(await io.openReader(), io, 'clicks')).map((r) => text(r.value));

describe('a transaction of version 2', () => {
  const INVALID_PRODUCER_EPOCH = 47;
  /** Error code of a Produce answer, version 12, with one partition. */
  function produceError(answer: Buffer): number {
    const at = new WireReader(answer);
    at.skipTags();
    return at.compactArray(() => {
      at.compactString();
      return at.compactArray(() => {
        at.int32();
        return at.int16();
      })[0]!;
    })[0]!;
  }

  it('has an epoch of its own: what comes late of the one before is refused, also in the middle of the next', async () => {
    const { io, namespace } = await bench.space(['clicks', 'exposures']);
    const writer = await io.openTransactionalWriter(`${namespace}-0`);
    await writer.init();
    const watched = watchRequests([API.produce]);
    let late: Promise<Buffer>;
    try {
      await writer.commit({ records: [raw('a')] });
      // Once its marker is there: before, the broker has the batch and says so.
      await until('the marker', async () => (await end(io)) === 2);
      assert.equal(produceError(await watched.repeat(0)), INVALID_PRODUCER_EPOCH);
      assert.equal(await end(io), 2);
      const committed = writer.commit({ records: [raw('b')] });
      late = watched.repeat(0);
      await committed;
    } finally {
      watched.restore();
    }
    assert.equal(produceError(await late), INVALID_PRODUCER_EPOCH);
    await writer.commit({ records: [raw('c')] });
    assert.deepEqual(await read(io), ['a', 'b', 'c']);
  });

  it('that the broker wants aborted fails and is aborted by init', async () => {
    const { io, namespace } = await bench.space(['clicks', 'exposures']);
    const writer = await io.openTransactionalWriter(`${namespace}-0`);
    await writer.init();
    await writer.commit({ records: [raw('a')], offsets: offsets(1) });
    const asked = askForAbort();
    try {
      await assert.rejects(writer.commit({ records: [raw('b')], offsets: offsets(2) }), (error) => {
        assert.ok(error instanceof TransactionFailedError && !(error instanceof FencedError));
        assert.match(error.message, /TRANSACTION_ABORTABLE \(120\) to TxnOffsetCommit.*Call init/);
        return true;
      });
    } finally {
      asked.restore();
    }
    await writer.init();
    assert.equal((await committed(io)).offset, 1);
    await writer.commit({ records: [raw('c')], offsets: offsets(2) });
    assert.deepEqual(await read(io), ['a', 'c']);
  });

  it('follows one of version 1 under the same transactional id, and is followed by one', async () => {
    const { io, namespace } = await bench.space(['clicks', 'exposures']);
    const writer = await io.openTransactionalWriter(`${namespace}-0`);
    for (const [i, isOld] of [true, false, true, false].entries()) {
      const hidden = isOld ? asOldBroker() : undefined;
      await writer.init().finally(() => hidden?.restore());
      await writer.commit({ records: [raw(`${i}`)], offsets: offsets(i) });
      await writer.commit({ records: [raw(`${i} more`)], offsets: offsets(i) });
    }
    assert.deepEqual(
      await read(io),
      [0, 1, 2, 3].flatMap((i) => [`${i}`, `${i} more`]),
    );
    assert.equal((await committed(io)).offset, 3);
  });
});
