/** From the bytes of the log to tensors: samples of this build's schema, of an older one, and what is no sample. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BadRecordError,
  encodeValue,
  fullSchema,
  type StreamedSample,
  type TopicName,
  type TrainingSample,
  ValueReader,
} from '@onemall/contracts';
import { rankerFeatures } from '@onemall/features';
import type { FetchedPartition, KafkaIo, LogReader, RawRecord } from '@onemall/kafka-io';
import { createLogger, StageMeter } from '@onemall/service-kit';
import avsc from 'avsc';
import fc from 'fast-check';
import { DeadLetters } from '../src/adapters/dead-letters.ts';
import { SampleEncoder } from '../src/adapters/sample-encoder.ts';
import { SampleFeed } from '../src/adapters/sample-feed.ts';
import { CODEBOOK_VERSION, historyOf, NUM_CODES, SCENARIOS, sample, sidOf } from './synthetic.ts';

const OWN_SCHEMA = 1;
const OLDER_SCHEMA = 2;
const log = createLogger('trainer', 'silent');

/** As a writer had it before there was `watchMs`. */
const older = structuredClone(fullSchema('TrainingSample')) as {
  fields: { name: string; type: { fields: { name: string }[] } }[];
};
const olderExposure = older.fields.find(({ name }) => name === 'exposure')!.type;
olderExposure.fields = olderExposure.fields.filter(({ name }) => name !== 'watchMs');
const olderType = avsc.Type.forSchema(older as never);
const olderBytes = (value: TrainingSample): Buffer =>
  Buffer.concat([Buffer.from([0, 0, 0, 0, OLDER_SCHEMA]), olderType.toBuffer(value)]);
const ownBytes = (value: TrainingSample): Buffer => encodeValue('training-samples', OWN_SCHEMA, value);

/** One partition with these records; counts what was decoded by the schema, and writes over what was given back. */
class FakeLog {
  readonly bySchema: number[] = [];
  readonly letters: { offset: number; reason: string }[] = [];
  readonly #records: RawRecord[];
  readonly #readers = new Map([
    [OWN_SCHEMA, new ValueReader('training-samples', fullSchema('TrainingSample'))],
    [OLDER_SCHEMA, new ValueReader('training-samples', older)],
  ]);
  #learnt = false;
  #done: () => void;

  constructor(records: readonly { key: string; value: Buffer }[], done: () => void) {
    this.#done = done;
    this.#records = records.map(({ key, value }, offset) => ({
      ...{ topic: 'training-samples' as TopicName, partition: 0, offset, timestampMs: offset },
      ...{ key: Buffer.from(key), value: Buffer.from(value) },
    }));
  }
  endOffsets = async () => [{ topic: 'training-samples', partition: 0, offset: this.#records.length }];
  isOwnSchema = (_topic: TopicName, id: number) => (this.#learnt ? id === OWN_SCHEMA : undefined);
  decode = async (_topic: TopicName, record: RawRecord) => {
    this.bySchema.push(record.offset);
    this.#learnt = true;
    const reader = this.#readers.get(record.value!.readUInt32BE(1));
    if (!reader) throw new BadRecordError('UNKNOWN_SCHEMA', 'no such schema');
    return { key: record.key!.toString(), value: reader.read(record.value!) };
  };
  deadLetter = ({ offset }: RawRecord, { reason }: BadRecordError) => {
    this.letters.push({ offset, reason });
    return {};
  };
  openReader = async () => ({
    assign: async () => {},
    poll: async () => this.#poll(),
    close: async () => {},
  });
  #poll(): FetchedPartition[] {
    const records = this.#records.splice(0);
    if (records.length === 0) {
      this.#done();
      return [];
    }
    const end = records.at(-1)!.offset + 1;
    return [
      {
        ...{ topic: 'training-samples', partition: 0, records, ends: [], sizeBytes: 0, sentAtMs: 0 },
        ...{ nextOffset: end, highWatermark: end, lastStableOffset: end },
        cursor: () => assert.fail('not used here'),
        release: () => {
          for (const { value } of records) value?.fill(0xee);
        },
      },
    ];
  }
  get io(): KafkaIo {
    return this as unknown as KafkaIo & { openReader(): Promise<LogReader> };
  }
}

async function feedOf(records: readonly { key: string; value: Buffer }[]) {
  const stopping = new AbortController();
  const kafka = new FakeLog(records, () => stopping.abort());
  const meter = new StageMeter('trainer');
  const writer = { send: async () => {}, close: async () => {} };
  const feed = await SampleFeed.open({
    ...{ io: kafka.io, log, meter, deadLetters: new DeadLetters(kafka.io, writer, log, meter) },
    ...{ scenarios: new Set(SCENARIOS), leavesOut: () => null, batchSize: 1_000, maxBuffered: 10_000 },
    ...{ resume: null, acceptLostSamples: false, stopping: stopping.signal },
  });
  await feed.run();
  const drawn = feed.drawer.drawPartial();
  return { kafka, samples: drawn?.samples.map((s) => s.sample) ?? [] };
}

const recordOf = (value: TrainingSample, bytes = ownBytes(value)) => ({
  key: value.exposure.userId,
  value: bytes,
});

const perScenario = <T>(value: T): Record<string, T> => Object.fromEntries(SCENARIOS.map((s) => [s, value]));
const encoder = new SampleEncoder({
  scenarios: SCENARIOS,
  codebooks: { codebookVersions: perScenario(CODEBOOK_VERSION), numCodes: perScenario(NUM_CODES) },
  historyLength: 12,
  meter: { add: () => {} },
  tables: {
    // every seventh item has none
    sidOf: (itemId) => {
      const at = itemId.lastIndexOf('-');
      const i = Number(itemId.slice(at + 1));
      return i % 7 === 0 ? null : sidOf(itemId.slice(0, at), i);
    },
  },
});
const tensorsOf = (samples: readonly StreamedSample[]) =>
  samples.map((s) => {
    const encoded = encoder.sample(s);
    return {
      // avsc gives records a class
      retriever: encoded && { ...encoded, target: { ...encoded.target } },
      ranker: rankerFeatures({ ...s.exposure, history: s.history }, s.exposure.itemId, s.item!),
    };
  });

test('tensors of samples read from bytes equal those of decoded objects, of this schema and of an older one', async () => {
  const lengths = fc.array(fc.nat(20), { minLength: 4, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(lengths, fc.nat(1_000), async (wanted, first) => {
      const values = wanted.map((length, i) => sample(first + i, { history: historyOf(first + i, length) }));
      const bytes = values.map((value, i) => (i % 3 === 1 ? olderBytes(value) : ownBytes(value)));
      const { kafka, samples } = await feedOf(values.map((value, i) => recordOf(value, bytes[i])));
      assert.deepEqual(tensorsOf(samples), tensorsOf(values));
      // the first, of a schema that is not known yet, and the older ones
      const expected = values.flatMap((_, i) => (i === 0 || i % 3 === 1 ? [i] : []));
      assert.deepEqual(kafka.bySchema, expected);
    }),
    { numRuns: 30, seed: 7 },
  );
});

test('what is no good sample goes to dead-letters with its reason, whichever way it was read', async () => {
  const good = sample(1);
  const spoilt = (over: Partial<TrainingSample['exposure']>): TrainingSample => ({
    ...good,
    exposure: { ...good.exposure, ...over },
  });
  const cases: [reason: string, key: string, value: Buffer][] = [
    ['NOT_A_NUMBER', 'u', ownBytes(spoilt({ requestFeatures: { ints: [], floats: [1, Number.NaN] } }))],
    ['KEY_MISMATCH', 'someone', ownBytes(good)],
    ['EMPTY_ID', '', ownBytes(spoilt({ userId: '' }))],
    ['UNKNOWN_SCENARIO', good.exposure.userId, ownBytes(spoilt({ scenario: 'radio' }))],
    ['NEGATIVE_VALUE', good.exposure.userId, ownBytes({ ...good, buyValueCents: -1 })],
    ['UNDECODABLE', good.exposure.userId, ownBytes(good).subarray(0, -3)],
    ['UNDECODABLE', good.exposure.userId, Buffer.concat([ownBytes(good), Buffer.of(0)])],
    ['NOT_WIRE_FORMAT', good.exposure.userId, Buffer.from('no')],
    ['UNKNOWN_SCHEMA', good.exposure.userId, Buffer.from([0, 0, 0, 0, 9, 1])],
    ['KEY_MISMATCH', 'someone', olderBytes(good)],
  ];
  const bad = cases.map(([, key, value]) => ({ key, value }));
  const { kafka, samples } = await feedOf([recordOf(good), ...bad, recordOf(good)]);
  assert.deepEqual(
    kafka.letters,
    cases.map(([reason], i) => ({ offset: i + 1, reason })),
  );
  assert.equal(samples.length, 2);
  assert.deepEqual(tensorsOf(samples), tensorsOf([good, good]));
});
