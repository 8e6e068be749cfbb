/** Records that are too large: refused where others write them, and never larger as a dead letter than its topic takes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BadRecordError,
  encodeValue,
  fullSchema,
  type TopicName,
  topicConfig,
  topicSpec,
} from '@onemall/contracts';
import fc from 'fast-check';
import { BatchBuilder } from '../src/data-plane/batch-builder.ts';
import type { RawRecord } from '../src/ports.ts';
import type { Registry } from '../src/registry.ts';
import { ValueCodec } from '../src/value-codec.ts';

const RETENTION = { largestWindowMs: 1, graceMs: 1, longestOutageMs: 1 };
const MIB = 1 << 20;
const registry = { schemaOf: async () => fullSchema('Click') } as unknown as Registry;
const codec = new ValueCodec({
  ...{ registry, validation: undefined, service: 'sample-assembler' },
  clock: { nowMs: () => 7, sleep: async () => {} },
});
const record = (
  topic: TopicName,
  value: Buffer | null,
  key: Buffer | null = Buffer.from('u1'),
): RawRecord => ({
  ...{ topic, partition: 3, offset: 42, timestampMs: 5, key, value },
});
const reasonOf = async (decoded: Promise<unknown>): Promise<string> => {
  const error: unknown = await decoded.catch((e: unknown) => e);
  assert.ok(error instanceof BadRecordError, String(error));
  return `${error.reason}: ${error.message}`;
};
const click = (userId: string) =>
  encodeValue('clicks', 1, { actionId: 'a', exposureId: null, userId, itemId: 'i', eventTimeMs: 1 });

test('an input value of more than 1 MiB is too large, one of exactly 1 MiB is read', async () => {
  const overhead = click('').length + 2; // the length of a long string takes three bytes, not one
  const fits = click('u'.repeat(MIB - overhead));
  assert.equal(fits.length, MIB);
  assert.equal((await codec.decode('clicks', record('clicks', fits))).value!.userId.length, MIB - overhead);
  const larger = record('clicks', click('u'.repeat(MIB - overhead + 1)));
  const expected = `TOO_LARGE: Expected a value of at most ${MIB} bytes in clicks, got ${MIB + 1}`;
  assert.equal(await reasonOf(codec.decode('clicks', larger)), expected);
  assert.throws(() => codec.decodeNow('clicks', larger), /at most/);
});

test('every input topic has the limit, what the pipeline writes itself has not', async () => {
  const huge = Buffer.alloc(MIB + 1, 1); // not wire format: whatever has no limit says so
  for (const topic of ['exposures', 'clicks', 'buys', 'items', 'live-product-changes'] as const)
    assert.match(await reasonOf(codec.decode(topic, record(topic, huge))), /^TOO_LARGE/, topic);
  for (const topic of ['training-samples', 'rollouts', 'dead-letters'] as const)
    assert.match(await reasonOf(codec.decode(topic, record(topic, huge))), /^NOT_WIRE_FORMAT/, topic);
  assert.equal((await codec.decode('items', record('items', null))).value, null);
});

test('a dead letter within the limits has every byte of its record', () => {
  const [value, key] = [Buffer.alloc(MIB, 1), Buffer.alloc(4096, 'k')];
  const letter = codec.deadLetter(record('clicks', value, key), { reason: 'X', message: 'why' });
  assert.deepEqual([letter.value!.detail, letter.key], ['why', key.toString()]);
  assert.ok(value.equals(letter.value!.payload!) && key.equals(letter.value!.key!));
  const empty = codec.deadLetter(record('clicks', null, null), { reason: 'X', message: 'why' });
  assert.deepEqual([empty.key, empty.value!.key, empty.value!.payload], ['', null, null]);
});

test('what is cut is said, with the place of the original', () => {
  const value = Buffer.alloc(MIB + 9, 1);
  value[MIB - 1] = 9;
  const { value: letter } = codec.deadLetter(record('clicks', value, Buffer.alloc(5000, 'k')), {
    ...{ reason: 'TOO_LARGE', message: 'Expected less' },
  });
  assert.equal(
    letter!.detail,
    'Expected less. The key of 5000 bytes is cut to its first 4096: topic, partition and offset name the original. ' +
      `The payload of ${MIB + 9} bytes is cut to its first ${MIB}: topic, partition and offset name the original`,
  );
  assert.deepEqual([letter!.payload!.length, letter!.payload!.at(-1), letter!.key!.length], [MIB, 9, 4096]);
  assert.deepEqual([letter!.topic, letter!.partition, letter!.offset], ['clicks', 3, 42]);
});

test('a dead letter fits its topic, whatever the record and the reason hold', () => {
  const limit = Number(topicConfig(topicSpec('dead-letters'), RETENTION)['max.message.bytes']);
  assert.equal(limit, 1_048_588 + 65_536);
  const sizeOf = (valueBytes: number, key: Buffer, message: string): number => {
    const source = record('live-product-changes', Buffer.alloc(valueBytes, 255), key);
    const letter = codec.deadLetter(source, { reason: 'TIME_OUT_OF_RANGE', message });
    const builder = new BatchBuilder();
    builder.append(Buffer.from(letter.key), encodeValue('dead-letters', 1, letter.value!), 0);
    return builder.sizeBytes;
  };
  const worst = sizeOf(3 * MIB, Buffer.alloc(MIB, 255), '\uffff'.repeat(MIB));
  assert.ok(worst > MIB && worst <= limit, `${worst} of ${limit}`);
  fc.assert(
    fc.property(
      fc.integer({ min: MIB - 5, max: MIB + 5 }),
      fc.integer({ min: 0, max: 9_000 }),
      fc.string({ maxLength: 9_000, unit: 'binary' }),
      (valueBytes, keyBytes, message) => {
        assert.ok(sizeOf(valueBytes, Buffer.alloc(keyBytes, 200), message) <= limit);
      },
    ),
    { seed: 41, numRuns: 15 },
  );
});
