/** The join on bytes behind the interface of its plain twin: records are encoded on the way in, samples decoded on the way out. */
import { avroType, BadRecordError, type TopicValues, topicType } from '@onemall/contracts';
import type { CatalogueBytes } from '../src/stages/catalogue.ts';
import { type JoinRules, type JoinStart, PartitionJoin } from '../src/stages/join-partition.ts';
import type { JoinOutputs, LogTopic } from '../src/stages/log-record.ts';
import { EventReader, isBad, type RecordView, type SchemaDecoder } from '../src/stages/read-event.ts';
import type { RecordPass } from '../src/stages/take-in-order.ts';
import type { HistoryCache } from '../src/state/users.ts';
import type { JoinOutput, LogRecord } from './plain/log-record.ts';

export const SAMPLE_HEADER = Buffer.from([0, 0, 0, 0, 9]);
const OWN_SCHEMA = 1;
/** Values under this id are decoded and written anew, although their schema is the same. */
export const OTHER_SCHEMA = 2;

export function wireBytes<T extends LogTopic>(
  topic: T,
  value: TopicValues[T],
  schemaId = OWN_SCHEMA,
): Buffer {
  const bytes = topicType(topic).toBuffer(value);
  return Buffer.concat([Buffer.from([0, 0, 0, 0, schemaId]), bytes]);
}

const decoder: SchemaDecoder = {
  isOwnSchema: (_topic, schemaId) => schemaId === OWN_SCHEMA,
  decodeNow: <T extends LogTopic>(topic: T, { value }: { value: Buffer | null }) => {
    if (!value || value[4] === 0) throw new BadRecordError('UNDECODABLE', 'poison');
    return { value: topicType(topic).fromBuffer(value.subarray(5)) as TopicValues[T] };
  },
};

const batches = new WeakMap<LogRecord, Buffer>();

/** Between other bytes, as in a fetched batch. */
class View implements RecordPass {
  bytes: Buffer = Buffer.alloc(0);
  offset = -1;
  timestampMs = -1;
  keyStart = 0;
  keyLength = -1;
  valueStart = 0;
  valueLength = -1;
  readonly #records: readonly LogRecord[];
  #at = 0;
  constructor(records: readonly LogRecord[]) {
    this.#records = records;
  }
  get maxCount(): number {
    return this.#records.length;
  }
  next(): boolean {
    const record = this.#records[this.#at++];
    if (!record) return false;
    const key = Buffer.from(record.event?.userId ?? '');
    const value = record.payload ?? Buffer.alloc(0);
    let bytes = batches.get(record);
    if (!bytes) {
      bytes = Buffer.concat([Buffer.from('before'), key, value, Buffer.from('after')]);
      batches.set(record, bytes);
    }
    this.bytes = bytes;
    this.offset = record.offset;
    this.timestampMs = record.appendTimeMs;
    this.keyStart = 6;
    this.keyLength = key.length;
    this.valueStart = 6 + key.length;
    this.valueLength = record.payload ? value.length : -1;
    return true;
  }
}
export const passOver = (records: readonly LogRecord[]): RecordPass => new View(records);

export class ByteJoin {
  readonly join: PartitionJoin;
  readonly #events: EventReader;

  constructor(
    partition: number,
    rules: JoinRules,
    catalogue: CatalogueBytes,
    start: JoinStart,
    cache: HistoryCache | null = null,
  ) {
    this.join = new PartitionJoin(partition, rules, catalogue, start, cache);
    this.#events = new EventReader(partition, decoder, {
      scenarioNames: rules.windows.scenarioNames,
      allowedClockSkewMs: 60_000,
    });
  }

  feed(record: LogRecord): number | null {
    const view = passOver([record]);
    view.next();
    return this.feedView(record.topic, view);
  }
  feedView(topic: LogTopic, view: RecordView): number | null {
    const event = this.#events.read(topic, view);
    if (!isBad(event)) return this.join.feed(event);
    this.join.feedBad(event);
    return null;
  }
  remember(record: LogRecord): void {
    const view = passOver([record]);
    view.next();
    const event = this.#events.read(record.topic, view);
    if (!isBad(event)) this.join.remember(event);
  }

  advance(watermarkMs: number): boolean {
    return this.join.advance(watermarkMs);
  }
  takeOutputs(): JoinOutput[] {
    return decodeOutputs(this.join.takeOutputs());
  }
  takeCounts() {
    return this.join.takeCounts();
  }
  discardReplay(): void {
    this.join.discardReplay();
  }
  restoreOffset(topic: LogTopic, nextOffset: number): number {
    return this.join.restoreOffset(topic, nextOffset);
  }
  pins(): ReadonlyMap<string, number> {
    return this.join.pins();
  }
  get watermarkMs(): number {
    return this.join.watermarkMs;
  }
  get openExposures(): number {
    return this.join.openExposures;
  }
  get waitingActions(): number {
    return this.join.waitingActions;
  }
  get historyEvents(): number {
    return this.join.historyEvents;
  }
  get neededFromMs(): number {
    return this.join.neededFromMs;
  }
}

const sampleType = avroType('TrainingSample');

export function decodeOutputs({ samples, others }: JoinOutputs): JoinOutput[] {
  const outputs: JoinOutput[] = [];
  for (let i = 0; i < samples.count; i++) {
    const value = Buffer.from(samples.bytes.subarray(samples.valueStart[i]!, samples.valueEnd[i]!));
    const keyStart = samples.keyStart[i]!;
    const key = Buffer.from(samples.bytes.subarray(keyStart, keyStart + samples.keyLength[i]!));
    if (!value.subarray(0, 5).equals(SAMPLE_HEADER))
      throw new Error(`No sample header: ${value.toString('hex')}`);
    const sample = sampleType.fromBuffer(value.subarray(5));
    if (key.toString() !== sample.exposure.userId) throw new Error(`The key is ${key}`);
    outputs.push({ kind: 'sample', sample, causeMs: samples.causeMs[i]! });
  }
  for (const other of others) {
    if (other.kind === 'late') outputs.push(other);
    else {
      const { reason, detail, topic, partition, offset, appendTimeMs, key, payload } = other.record;
      const record = {
        topic,
        partition,
        offset,
        appendTimeMs,
        key,
        payload,
        event: null,
        bad: { reason, detail },
      };
      outputs.push({ kind: 'dead', record });
    }
  }
  return outputs;
}

/** A sample with its fields in the order of the schema. */
export const canonical = <S extends object>(sample: S): S =>
  sampleType.fromBuffer(sampleType.toBuffer({ watermarkMs: 0, ...sample })) as S;
