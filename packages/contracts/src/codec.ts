/**
 * Avro values in the Confluent wire format: a zero byte, the schema id as 4 bytes big-endian, the Avro bytes.
 * Encoding and decoding stay on avsc; the registry is only asked for ids and unknown schemas.
 */
import avsc, { type Type } from 'avsc';
import { fullSchema } from './schemas.ts';
import { type TopicName, type TopicValues, topicSpec } from './topics.ts';

export const WIRE_HEADER_BYTES = 5;

/** A record that no retry can mend: it belongs in dead-letters with this reason. */
export class BadRecordError extends Error {
  readonly reason: BadRecordReason;
  constructor(reason: BadRecordReason, detail: string, options?: ErrorOptions) {
    super(detail, options);
    this.name = 'BadRecordError';
    this.reason = reason;
  }
}
export type BadRecordReason =
  | 'NOT_WIRE_FORMAT'
  | 'UNKNOWN_SCHEMA'
  | 'UNDECODABLE'
  | 'KEY_MISMATCH'
  | 'EMPTY_ID'
  | 'UNKNOWN_SCENARIO'
  | 'NOT_A_NUMBER'
  | 'NEGATIVE_VALUE'
  | 'TIME_OUT_OF_RANGE'
  | 'TOO_LARGE'
  /** The ranker over HTTP gives no usable scores for this rollout. */
  | 'REFUSED_BY_RANKER';

const types = new Map<string, Type>();

/** The avsc type of a schema file, built once. */
export function avroType(schema: string): Type {
  let type = types.get(schema);
  if (!type) {
    type = avsc.Type.forSchema(fullSchema(schema));
    types.set(schema, type);
  }
  return type;
}

export const topicType = (topic: TopicName): Type => avroType(topicSpec(topic).schema);

/**
 * @throws BadRecordError NOT_WIRE_FORMAT when the value is shorter than the header or does not begin with a zero byte.
 */
export function schemaIdOf(value: Uint8Array | null): number {
  if (!value || value.length < WIRE_HEADER_BYTES || value[0] !== 0) {
    const seen = value
      ? `${value.length} bytes beginning 0x${Buffer.from(value.subarray(0, 5)).toString('hex')}`
      : 'null';
    throw new BadRecordError(
      'NOT_WIRE_FORMAT',
      `Expected Confluent wire format (0x00 and a 4-byte schema id), got ${seen}`,
    );
  }
  return ((value[1]! << 24) | (value[2]! << 16) | (value[3]! << 8) | value[4]!) >>> 0;
}

/** Wire-format bytes of a value. @throws Error naming the field when the value does not fit the schema. */
export function encodeValue<T extends TopicName>(topic: T, schemaId: number, value: TopicValues[T]): Buffer {
  const type = topicType(topic);
  let size: number;
  const buffer = Buffer.allocUnsafe(2048);
  buffer[0] = 0;
  buffer.writeUInt32BE(schemaId, 1);
  try {
    size = type.encode(value, buffer, WIRE_HEADER_BYTES);
    if (size > 0) return buffer.subarray(0, size);
    // avsc answers with minus the missing bytes when the buffer was too small
    const larger = Buffer.allocUnsafe(2048 - size);
    buffer.copy(larger, 0, 0, WIRE_HEADER_BYTES);
    type.encode(value, larger, WIRE_HEADER_BYTES);
    return larger;
  } catch (cause) {
    const paths: string[] = [];
    type.isValid(value, { errorHook: (path, v) => paths.push(`${path.join('.')} = ${JSON.stringify(v)}`) });
    throw new Error(`Value does not fit the schema of ${topic}: ${paths.join('; ') || String(cause)}`, {
      cause,
    });
  }
}

/** Reads values written with one writer schema as this build's schema of the topic. */
export class ValueReader<T extends TopicName> {
  readonly #type: Type;
  readonly #resolver: ReturnType<Type['createResolver']> | undefined;
  /** True while the writer's schema is the embedded one, so that bytes may pass through unread. */
  readonly sameSchema: boolean;

  constructor(topic: T, writerSchema: unknown) {
    this.#type = topicType(topic);
    const writer = avsc.Type.forSchema(writerSchema as never);
    this.sameSchema = writer.fingerprint('md5').equals(this.#type.fingerprint('md5'));
    this.#resolver = this.sameSchema ? undefined : this.#type.createResolver(writer);
  }

  /** @throws BadRecordError UNDECODABLE */
  read(value: Buffer): TopicValues[T] {
    try {
      return this.#type.fromBuffer(value.subarray(WIRE_HEADER_BYTES), this.#resolver) as TopicValues[T];
    } catch (cause) {
      throw new BadRecordError(
        'UNDECODABLE',
        `Value of ${value.length} bytes does not decode: ${(cause as Error).message}`,
        { cause },
      );
    }
  }
}
