/** Typed values and record bytes. The registry is asked once for each schema id; everything else is avsc. */
import {
  BadRecordError,
  encodeValue,
  schemaIdOf,
  type TopicName,
  type TopicValues,
  topicSpec,
  type ValidationRules,
  ValueReader,
  validateValue,
  WIRE_HEADER_BYTES,
} from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import type { OutRecord, RawRecord, TypedRecord } from './ports.ts';
import type { Registry } from './registry.ts';

/** Topics that others' servers write. Batches are limited compressed, so that a value may be larger than a topic allows. */
const INPUTS: ReadonlySet<TopicName> = new Set<TopicName>([
  'exposures',
  'clicks',
  'buys',
  'items',
  'live-product-changes',
]);
/** Of an input, and of a dead letter's payload: with the limits below a dead letter fits its topic's max.message.bytes. */
const MAX_VALUE_BYTES = 1 << 20;
/** Of a dead letter. Its key stands in the record twice, once as text, where a byte that is no UTF-8 takes three. */
const MAX_KEY_BYTES = 4 << 10;
/** Of a dead letter: a reason may quote the record. */
const MAX_DETAIL_CHARACTERS = 4 << 10;

type Reader<T extends TopicName> = ValueReader<T> | BadRecordError;

export class ValueCodec {
  readonly #registry: Registry;
  readonly #validation: ValidationRules | undefined;
  readonly #service: string;
  readonly #clock: Clock;
  readonly #readers = new Map<TopicName, Map<number, Reader<TopicName>>>();
  /** Schema ids that the registry did not have when last asked by `learnSchema`. */
  readonly #unknown = new Map<number, BadRecordError>();
  readonly #writerIds = new Map<TopicName, Promise<number>>();

  constructor(options: {
    registry: Registry;
    validation: ValidationRules | undefined;
    service: string;
    clock: Clock;
  }) {
    this.#registry = options.registry;
    this.#validation = options.validation;
    this.#service = options.service;
    this.#clock = options.clock;
  }

  /** This build's schema id of the topic, registered when first asked for. */
  schemaId(topic: TopicName): Promise<number> {
    let id = this.#writerIds.get(topic);
    if (!id) {
      id = this.#registry.register(topic);
      this.#writerIds.set(topic, id);
      id.catch(() => this.#writerIds.delete(topic));
    }
    return id;
  }

  isOwnSchema(topic: TopicName, schemaId: number): boolean | undefined {
    const reader = this.#cached(topic, schemaId);
    return reader && reader instanceof ValueReader && reader.sameSchema;
  }

  /** Asks the registry where that is needed. What the registry does not have stays unlearnt, and `decodeNow` says so. */
  async learnSchema(topic: TopicName, schemaId: number): Promise<void> {
    if (this.#cached(topic, schemaId)) return;
    try {
      await this.#lookUp(topic, schemaId);
      this.#unknown.delete(schemaId);
    } catch (error) {
      if (!(error instanceof BadRecordError)) throw error;
      this.#unknown.set(schemaId, error);
    }
  }

  /** What stands before the Avro bytes of this build's values of the topic. */
  async wireHeader(topic: TopicName): Promise<Buffer> {
    const header = Buffer.alloc(WIRE_HEADER_BYTES);
    header.writeUInt32BE(await this.schemaId(topic), 1);
    return header;
  }

  async encode<T extends TopicName>(topic: T, value: TopicValues[T]): Promise<Buffer> {
    return encodeValue(topic, await this.schemaId(topic), value);
  }

  async decode<T extends TopicName>(topic: T, record: RawRecord): Promise<TypedRecord<T>> {
    const id = this.#idOf(topic, record);
    if (id === undefined) return this.#typed(topic, record, null);
    const reader = this.#cached(topic, id) ?? (await this.#lookUp(topic, id));
    return this.#read(topic, record, reader);
  }

  /**
   * Decodes at once where the schema is known, which is always but for the first record of each schema.
   * @returns undefined where the registry must be asked: use `decode`
   * @throws BadRecordError
   */
  decodeNow<T extends TopicName>(topic: T, record: RawRecord): TypedRecord<T> | undefined {
    const id = this.#idOf(topic, record);
    if (id === undefined) return this.#typed(topic, record, null);
    const reader = this.#cached(topic, id) ?? this.#unknown.get(id);
    return reader && this.#read(topic, record, reader);
  }

  /** undefined for a tombstone. */
  #idOf(topic: TopicName, record: RawRecord): number | undefined {
    if (record.value === null && topicSpec(topic).cleanup === 'compact') return undefined;
    if (record.value && record.value.length > MAX_VALUE_BYTES && INPUTS.has(topic))
      throw new BadRecordError(
        'TOO_LARGE',
        `Expected a value of at most ${MAX_VALUE_BYTES} bytes in ${topic}, got ${record.value.length}`,
      );
    return schemaIdOf(record.value);
  }

  #cached<T extends TopicName>(topic: T, id: number): Reader<T> | undefined {
    return this.#readers.get(topic)?.get(id) as Reader<T> | undefined;
  }

  async #lookUp<T extends TopicName>(topic: T, id: number): Promise<Reader<T>> {
    const schema = await this.#registry.schemaOf(id);
    let reader: Reader<T>;
    try {
      reader = new ValueReader(topic, schema);
    } catch (cause) {
      reader = new BadRecordError(
        'UNDECODABLE',
        `Schema ${id} cannot be read as ${topicSpec(topic).schema}: ${(cause as Error).message}`,
        { cause },
      );
    }
    let ofTopic = this.#readers.get(topic);
    if (!ofTopic) {
      ofTopic = new Map();
      this.#readers.set(topic, ofTopic);
    }
    ofTopic.set(id, reader as Reader<TopicName>);
    return reader;
  }

  #read<T extends TopicName>(topic: T, record: RawRecord, reader: Reader<T>): TypedRecord<T> {
    if (reader instanceof BadRecordError) throw reader;
    const typed = this.#typed(topic, record, reader.read(record.value!));
    if (this.#validation) validateValue(topic, typed, this.#validation);
    return typed;
  }

  #typed<T extends TopicName>(topic: T, r: RawRecord, value: TopicValues[T] | null): TypedRecord<T> {
    const { partition, offset, timestampMs } = r;
    return { topic, partition, offset, timestampMs, key: r.key?.toString('utf8') ?? '', value };
  }

  /** Keys, payloads and details beyond their limits are cut, and the detail says so. */
  deadLetter(record: RawRecord, error: { reason: string; message: string }): OutRecord<'dead-letters'> {
    // The buffers are views of a fetched batch: a dead letter may outlive it.
    const key = record.key && Buffer.from(record.key.subarray(0, MAX_KEY_BYTES));
    const payload = record.value && Buffer.from(record.value.subarray(0, MAX_VALUE_BYTES));
    const cuts = [cutNote('key', record.key, key), cutNote('payload', record.value, payload)].join('');
    return {
      topic: 'dead-letters',
      key: key?.toString('utf8') ?? '',
      value: {
        service: this.#service,
        reason: error.reason,
        detail: `${shortened(error.message)}${cuts}`,
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        appendTimeMs: record.timestampMs,
        key,
        payload,
        createdMs: this.#clock.nowMs(),
      },
    };
  }
}

const cutNote = (what: string, whole: Buffer | null, kept: Buffer | null): string =>
  whole && kept && kept.length < whole.length
    ? `. The ${what} of ${whole.length} bytes is cut to its first ${kept.length}: topic, partition and offset name the original`
    : '';

const shortened = (detail: string): string =>
  detail.length > MAX_DETAIL_CHARACTERS ? `${detail.slice(0, MAX_DETAIL_CHARACTERS)}...` : detail;
