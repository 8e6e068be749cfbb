/** Answers of transactions of version 2, from bytes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BrokerError } from '../src/brokers.ts';
import { endAndRaiseEpoch, transactionVersion } from '../src/data-plane/transactions-v2.ts';
import { WireReader, WireWriter } from '../src/data-plane/wire.ts';
import type { Broker } from '../src/kafkajs-internals.ts';

const answering = (answer: Buffer): Broker =>
  ({ connectionPool: { send: async () => answer } }) as unknown as Broker;

function versionsAnswer(features: readonly { name: string; level: number }[]): Buffer {
  const finalized = new WireWriter();
  finalized.compactArray(features, ({ name, level }) =>
    finalized.compactString(name).int16(level).int16(0).uvarint(0),
  );
  const body = new WireWriter().int16(0);
  body.compactArray([1, 2, 3], (key) => body.int16(key).int16(0).int16(9).uvarint(0));
  body.int32(0).uvarint(3);
  body.uvarint(1).uvarint(8).int64(77); // epoch of the features
  body.uvarint(2).uvarint(finalized.bytes().length);
  return Buffer.concat([body.bytes(), finalized.bytes(), Buffer.from([200, 1, 2, 9, 9])]);
}

describe('transaction.version', () => {
  it('is found among features and tags that nobody knows', async () => {
    const features = [
      { name: 'metadata.version', level: 29 },
      { name: 'transaction.version', level: 2 },
      { name: 'share.version', level: 1 },
    ];
    assert.equal(await transactionVersion(answering(versionsAnswer(features))), 2);
    assert.equal(await transactionVersion(answering(versionsAnswer(features.slice(0, 1)))), 0);
  });

  it('is 0 where the broker is older than features', async () => {
    assert.equal(await transactionVersion(answering(Buffer.from([0, 35, 0, 0, 0, 0]))), 0);
  });
});

describe('the end of a transaction of version 2', () => {
  const producer = { transactionalId: 't', producerId: 5, producerEpoch: 32_766 };
  const endAnswer = (code: number, producerId: number, producerEpoch: number): Buffer =>
    new WireWriter()
      .uvarint(0)
      .int32(0)
      .int16(code)
      .int64(producerId)
      .int16(producerEpoch)
      .uvarint(0)
      .bytes();

  it('gives the producer of the next, with a new id where no epoch is left', async () => {
    const next = await endAndRaiseEpoch(answering(endAnswer(0, 6, 0)), producer, true);
    assert.deepEqual(next, { transactionalId: 't', producerId: 6, producerEpoch: 0 });
  });

  it('that is refused says why', async () => {
    await assert.rejects(
      endAndRaiseEpoch(answering(endAnswer(90, -1, -1)), producer, true),
      (error) => error instanceof BrokerError && error.type === 'PRODUCER_FENCED',
    );
  });
});

describe('tags that are passed over', () => {
  it('may have contents of any length', () => {
    const body = new WireWriter().uvarint(2).uvarint(0).uvarint(3).int8(1).int16(2).uvarint(9).uvarint(0);
    const reader = new WireReader(body.int32(42).bytes());
    reader.skipTags();
    assert.equal(reader.int32(), 42);
  });
});
