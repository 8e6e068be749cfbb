import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import avsc from 'avsc';
import { generateTypes } from '../src/generate.ts';
import {
  avroType,
  BadRecordError,
  encodeValue,
  fullSchema,
  schemaIdOf,
  schemaNames,
  TOPICS,
  topicConfig,
  topicSpec,
  ValueReader,
} from '../src/index.ts';

const click = {
  actionId: 'a1',
  exposureId: null,
  userId: 'u1',
  itemId: 'i1',
  eventTimeMs: 1_700_000_000_000,
};

test('generated types are what schemas/*.avsc say', () => {
  assert.equal(readFileSync(new URL('../src/generated/types.ts', import.meta.url), 'utf8'), generateTypes());
});

test('every topic names a schema that avsc accepts on its own', () => {
  for (const topic of TOPICS) assert.ok(avsc.Type.forSchema(fullSchema(topic.schema)), topic.name);
  assert.deepEqual([...new Set(TOPICS.map((t) => t.schema))].sort(), schemaNames());
});

test("TrainingSample's bytes begin with its Exposure's bytes", () => {
  const exposure = avroType('Exposure').random();
  const sample = { ...(avroType('TrainingSample').random() as object), exposure };
  const bytes = avroType('TrainingSample').toBuffer(sample);
  const prefix = avroType('Exposure').toBuffer(exposure);
  assert.deepEqual(bytes.subarray(0, prefix.length), prefix);
});

test('encodeValue writes the wire format and ValueReader reads it back', () => {
  const bytes = encodeValue('clicks', 7, click);
  assert.equal(schemaIdOf(bytes), 7);
  assert.deepEqual({ ...new ValueReader('clicks', fullSchema('Click')).read(bytes) }, click);
});

test('encodeValue grows past its first buffer', () => {
  const long = { ...click, itemId: 'x'.repeat(10_000) };
  assert.equal(
    new ValueReader('clicks', fullSchema('Click')).read(encodeValue('clicks', 1, long)).itemId.length,
    10_000,
  );
});

test('encodeValue names the field that does not fit', () => {
  assert.throws(
    () => encodeValue('clicks', 1, { ...click, eventTimeMs: 'soon' as unknown as number }),
    /eventTimeMs = "soon"/,
  );
});

test('poison bytes give a reason', () => {
  for (const bytes of [null, Buffer.from([]), Buffer.from('hello world')])
    assert.throws(
      () => schemaIdOf(bytes),
      (e) => e instanceof BadRecordError && e.reason === 'NOT_WIRE_FORMAT',
    );
  const reader = new ValueReader('clicks', fullSchema('Click'));
  assert.throws(
    () => reader.read(Buffer.from([0, 0, 0, 0, 1, 200, 1])),
    (e) => e instanceof BadRecordError && e.reason === 'UNDECODABLE',
  );
});

test('a reader resolves an older writer schema and knows that bytes may not pass through', () => {
  const older = structuredClone(fullSchema('Exposure')) as { fields: { name: string }[] };
  older.fields = older.fields.filter((f) => f.name !== 'watchMs');
  const reader = new ValueReader('exposures', older);
  assert.equal(reader.sameSchema, false);
  const value = avsc.Type.forSchema(older as never).random() as object;
  const bytes = Buffer.concat([
    Buffer.from([0, 0, 0, 0, 1]),
    avsc.Type.forSchema(older as never).toBuffer(value),
  ]);
  assert.equal(reader.read(bytes).watchMs, null);
});

test('SID topics outlive the logs by two windows', () => {
  const r = { largestWindowMs: 1_800_000, graceMs: 120_000, longestOutageMs: 86_400_000 };
  const logs = Number(topicConfig(topicSpec('exposures'), r)['retention.ms']);
  assert.equal(Number(topicConfig(topicSpec('item-sids'), r)['min.compaction.lag.ms']), logs + 3_600_000);
});
