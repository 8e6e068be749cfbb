/**
 * Reads and validates one fetched record of the three logs. Where it has this build's schema and nothing unusual, its
 * bytes are looked at in place and become state as they are; all else is decoded by the schema and its rules, which
 * gives the exact reason of bad input, or a value that is written anew.
 */
import { BadRecordError, type TopicValues, topicType, WIRE_HEADER_BYTES } from '@onemall/contracts';
import { equalBytes } from '../bytes/hash.ts';
import { ScenarioNames } from '../state/event-fields.ts';
import { type BadRecord, LogEvent, type LogTopic } from './log-record.ts';

/** A fetched record; the bytes belong to its batch. */
export interface RecordView {
  readonly bytes: Buffer;
  readonly offset: number;
  readonly timestampMs: number;
  readonly keyStart: number;
  readonly keyLength: number;
  readonly valueStart: number;
  readonly valueLength: number;
}

interface Raw {
  topic: LogTopic;
  partition: number;
  offset: number;
  timestampMs: number;
  key: Buffer | null;
  value: Buffer | null;
}

/** Decoding by schema, for schemas that were learnt. */
export interface SchemaDecoder {
  isOwnSchema(topic: LogTopic, schemaId: number): boolean | undefined;
  /** Decodes and validates. @throws BadRecordError */
  decodeNow<T extends LogTopic>(topic: T, raw: Raw): { value: TopicValues[T] | null };
}

export class EventReader {
  readonly #partition: number;
  readonly #decoder: SchemaDecoder;
  readonly #scenarios: ScenarioNames;
  readonly #allowedClockSkewMs: number;
  readonly #event = new LogEvent();
  /** Own schema ids seen last, by topic. */
  readonly #ownSchemaId: Record<LogTopic, number> = { exposures: -1, clicks: -1, buys: -1 };

  /** @param scenarioNames in the order of their numbers */
  constructor(
    partition: number,
    decoder: SchemaDecoder,
    rules: { scenarioNames: readonly string[]; allowedClockSkewMs: number },
  ) {
    this.#partition = partition;
    this.#decoder = decoder;
    this.#scenarios = new ScenarioNames(rules.scenarioNames);
    this.#allowedClockSkewMs = rules.allowedClockSkewMs;
  }

  /** @returns the event, valid until the next call, or why it is bad input */
  read(topic: LogTopic, record: RecordView): LogEvent | BadRecord {
    const event = this.#event;
    event.topic = topic;
    event.offset = record.offset;
    event.appendTimeMs = record.timestampMs;
    event.payload.bytes = record.bytes;
    event.payload.start = record.valueStart;
    event.payload.end = record.valueStart + record.valueLength;
    if (this.#hasOwnSchema(topic, record) && this.#readInPlace(topic, record)) return event;
    return this.#readBySchema(topic, record);
  }

  #hasOwnSchema(topic: LogTopic, { bytes, valueStart, valueLength }: RecordView): boolean {
    if (valueLength < WIRE_HEADER_BYTES || bytes[valueStart] !== 0) return false;
    const schemaId = bytes.readUInt32BE(valueStart + 1);
    if (schemaId === this.#ownSchemaId[topic]) return true;
    if (this.#decoder.isOwnSchema(topic, schemaId) !== true) return false;
    this.#ownSchemaId[topic] = schemaId;
    return true;
  }

  #readInPlace(topic: LogTopic, record: RecordView): boolean {
    const { bytes, valueStart, valueLength, timestampMs } = record;
    const start = valueStart + WIRE_HEADER_BYTES;
    const end = valueStart + valueLength;
    const latestMs = timestampMs < 0 ? Number.POSITIVE_INFINITY : timestampMs + this.#allowedClockSkewMs;
    const event = this.#event;
    if (topic !== 'exposures') {
      const { action } = event;
      return (
        action.read(bytes, start, end, topic === 'buys') &&
        isTime(action.timeMs, latestMs) &&
        isKey(record, action.userAt, action.userLength)
      );
    }
    const { exposure } = event;
    if (!exposure.read(bytes, start, end)) return false;
    event.scenario = this.#scenarios.numberOf(bytes, exposure.scenarioAt, exposure.scenarioLength);
    return (
      event.scenario >= 0 &&
      isTime(exposure.timeMs, latestMs) &&
      isTime(exposure.requestTimeMs, latestMs) &&
      isKey(record, exposure.userAt, exposure.userLength)
    );
  }

  #readBySchema(topic: LogTopic, record: RecordView): LogEvent | BadRecord {
    const raw: Raw = {
      topic,
      partition: this.#partition,
      offset: record.offset,
      timestampMs: record.timestampMs,
      key: part(record, record.keyStart, record.keyLength),
      value: part(record, record.valueStart, record.valueLength),
    };
    try {
      const { value } = this.#decoder.decodeNow(topic, raw);
      if (value === null)
        throw new BadRecordError('NOT_WIRE_FORMAT', `Expected a value in ${topic}, got a tombstone`);
      return this.#writeAnew(topic, value);
    } catch (error) {
      if (!(error instanceof BadRecordError)) throw error;
      return {
        topic,
        partition: raw.partition,
        offset: raw.offset,
        appendTimeMs: raw.timestampMs,
        key: raw.key && Buffer.from(raw.key),
        payload: raw.value && Buffer.from(raw.value),
        reason: error.reason,
        detail: error.message,
      };
    }
  }

  #writeAnew(topic: LogTopic, value: TopicValues[LogTopic]): LogEvent {
    const event = this.#event;
    const bytes = topicType(topic).toBuffer(value);
    const isLocated =
      topic === 'exposures'
        ? event.exposure.readHead(bytes, 0, bytes.length)
        : event.action.locate(bytes, 0, bytes.length, topic === 'buys');
    if (!isLocated) throw new Error(`What was encoded as ${topic} cannot be read: ${bytes.toString('hex')}`);
    if (topic === 'exposures') {
      const { scenarioAt, scenarioLength } = event.exposure;
      event.scenario = this.#scenarios.numberOf(bytes, scenarioAt, scenarioLength);
    }
    return event;
  }
}

export const isBad = (read: LogEvent | BadRecord): read is BadRecord => !(read instanceof LogEvent);

const isTime = (ms: number, latestMs: number): boolean => ms >= 0 && ms <= latestMs;
const isKey = (record: RecordView, userAt: number, userLength: number): boolean =>
  record.keyLength === userLength &&
  equalBytes(record.bytes, record.keyStart, record.bytes, userAt, userLength);
const part = ({ bytes }: RecordView, start: number, length: number): Buffer | null =>
  length < 0 ? null : bytes.subarray(start, start + length);
