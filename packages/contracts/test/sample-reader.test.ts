import assert from 'node:assert/strict';
import { test } from 'node:test';
import type avsc from 'avsc';
import fc from 'fast-check';
import {
  avroType,
  encodeValue,
  fullSchema,
  type HistoryEvent,
  readSample,
  type StreamedSample,
  type TrainingSample,
  ValueReader,
  WIRE_HEADER_BYTES,
} from '../src/index.ts';

const time = fc.integer({ min: -1, max: 2 ** 41 });
const event: fc.Arbitrary<HistoryEvent> = fc.record({
  itemId: fc.string({ unit: 'grapheme', maxLength: 40 }),
  eventTimeMs: time,
  category: fc.oneof(fc.constantFrom('', 'shoes'), fc.string({ unit: 'binary', maxLength: 12 })),
});
const events = fc.array(event, { maxLength: 12 });
const text = fc.string({ maxLength: 12 });
const sample: fc.Arbitrary<TrainingSample> = fc.record({
  exposure: fc.record({
    ...{ exposureId: text, userId: text, itemId: text, scenario: text, requestId: text },
    ...{ eventTimeMs: time, requestTimeMs: time, position: fc.nat(100), priceCents: fc.nat() },
    watchMs: fc.option(fc.nat()),
    requestFeatures: fc.record({
      ints: fc.array(fc.integer(), { maxLength: 4 }),
      floats: fc.array(fc.float(), { maxLength: 4 }),
    }),
  }),
  kind: fc.constantFrom('CLICK', 'BUY', 'FINAL'),
  ...{ firstPositive: fc.boolean(), clicked: fc.boolean(), bought: fc.boolean() },
  ...{ clickDelayMs: fc.option(fc.nat()), buyDelayMs: fc.option(fc.nat()) },
  ...{ buyValueCents: fc.nat(), buyQuantity: fc.nat(), watermarkMs: time },
  sid: fc.option(
    fc.record({ scenario: text, codebookVersion: fc.nat(), c1: fc.nat(), c2: fc.nat(), c3: fc.nat() }),
  ),
  item: fc.option(
    fc.record({
      ...{ category: text, sellerId: text, priceCents: fc.nat(), validFromMs: time },
      ...{ tags: fc.array(text, { maxLength: 3 }), sellingItemIds: fc.array(text, { maxLength: 3 }) },
    }),
  ),
  history: fc.record({ exposures: events, clicks: events, buys: events }),
});

const bySchema = new ValueReader('training-samples', fullSchema('TrainingSample'));
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value, nanByName)) as T;
const nanByName = (_: string, value: unknown): unknown =>
  typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0)) ? `${value}` : value;
const plainEvents = (list: Iterable<HistoryEvent>): HistoryEvent[] =>
  Array.from(list, ({ itemId, eventTimeMs, category }) => ({ itemId, eventTimeMs, category }));
const asObject = (read: StreamedSample | TrainingSample): unknown => {
  const { exposures, clicks, buys } = read.history;
  const history = { exposures: plainEvents(exposures), clicks: plainEvents(clicks), buys: plainEvents(buys) };
  return plain({ ...read, history });
};

test('a sample read from its bytes is what the schema says, however often its events are asked for', () => {
  fc.assert(
    fc.property(sample, (value) => {
      const bytes = encodeValue('training-samples', 7, value);
      const read = readSample(bytes);
      assert.ok(read);
      assert.deepEqual(asObject(read), asObject(bySchema.read(bytes)));
      assert.deepEqual(asObject(read), asObject(read));
      bytes.fill(0xff, WIRE_HEADER_BYTES); // the fetched memory may be written over
      assert.deepEqual(plainEvents(read.history.clicks), plain(value.history.clicks));
    }),
    { seed: 5 },
  );
});

const plainText = fc.string({ unit: fc.constantFrom('a', 'b', '7'), maxLength: 9 });
const plainEvent = fc.record({ itemId: plainText, eventTimeMs: fc.nat(), category: plainText });
const plainHistory = fc.array(plainEvent, { maxLength: 5 });

test('bytes that were cut off, lengthened or changed are not read, or read as the schema reads them', () => {
  const changed = fc.record({
    value: sample,
    history: fc.record({ exposures: plainHistory, clicks: plainHistory, buys: plainHistory }),
    at: fc.nat(),
    bit: fc.nat(6),
  });
  fc.assert(
    fc.property(changed, ({ value, history, at, bit }) => {
      const bytes = encodeValue('training-samples', 7, { ...value, history });
      const cut = WIRE_HEADER_BYTES + (at % (bytes.length - WIRE_HEADER_BYTES));
      assert.equal(readSample(bytes.subarray(0, cut)), null);
      assert.equal(readSample(Buffer.concat([bytes, Buffer.of(0)])), null);
      // Bits of the history, the last part: what they say of lengths and counts stays small.
      const tailLength = partBytes('history', history).length;
      const place = bytes.length - 1 - (at % tailLength);
      bytes[place]! ^= 1 << bit;
      const read = readSample(bytes);
      if (read) assert.deepEqual(asObject(read), asObject(bySchema.read(bytes)));
    }),
    { seed: 6 },
  );
});

test('events in blocks with their size in bytes are left to the schema', () => {
  const [value] = fc.sample(sample, { numRuns: 1, seed: 3 });
  const none = { ...value!, history: { exposures: [], clicks: [], buys: [] } };
  const bytes = encodeValue('training-samples', 1, none);
  const one = avroType('TrainingSample').toBuffer({
    ...none,
    history: { ...none.history, exposures: [{ itemId: 'a', eventTimeMs: 3, category: 'b' }] },
  });
  const historyAt = WIRE_HEADER_BYTES + headLength(none);
  const [head, watermark] = [bytes.subarray(0, historyAt), bytes.subarray(historyAt + 3)];
  // -1 events in 5 bytes, 'a', 3, 'b', the end of the array; then no clicks and no buys
  const blocks = Buffer.from([1, 10, 2, 97, 6, 2, 98, 0, 0, 0]);
  const sized = Buffer.concat([head, blocks, watermark]);
  assert.equal(readSample(sized), null);
  assert.deepEqual(asObject(bySchema.read(sized)), asObject(avroType('TrainingSample').fromBuffer(one)));
});

/** A field on its own. */
const partBytes = (name: keyof TrainingSample, value: unknown): Buffer =>
  (avroType('TrainingSample') as avsc.types.RecordType).field(name)!.type.toBuffer(value);

/** Bytes of the fields before the history. */
const headLength = (value: TrainingSample): number =>
  avroType('TrainingSample').toBuffer(value).length -
  partBytes('history', value.history).length -
  partBytes('watermarkMs', value.watermarkMs).length;
