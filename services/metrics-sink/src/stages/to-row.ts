/** One record as one row of its topic's table (table-schema.ts has the types). */
import { fullSchema, type TopicName, topicSpec } from '@onemall/contracts';
import { omittedFields } from './table-schema.ts';

export type Row = Record<string, unknown>;

/** What a row needs of a decoded record. */
export interface SourceRecord {
  topic: TopicName;
  partition: number;
  offset: number;
  timestampMs: number;
  key: string;
  value: unknown;
}
type Avro =
  | string
  | Avro[]
  | { type: string; name?: string; fields?: { name: string; type: Avro }[]; items?: Avro; values?: Avro };
type Convert = (value: never) => unknown;

const converters = new Map<TopicName, (value: Record<string, unknown>) => Row>();

/** @param record a record with a value; tombstones make no row */
export function toRow(record: SourceRecord): Row {
  let convert = converters.get(record.topic);
  if (!convert) {
    convert = rowConverter(record.topic);
    converters.set(record.topic, convert);
  }
  const row = convert(record.value as Record<string, unknown>);
  row._partition = record.partition;
  row._offset = record.offset;
  row._timestamp_ms = record.timestampMs;
  row._key = record.key;
  return row;
}

function rowConverter(topic: TopicName): (value: Record<string, unknown>) => Row {
  const schema = fullSchema(topicSpec(topic).schema) as unknown as { fields: { name: string; type: Avro }[] };
  const named = new Map<string, Avro>();
  const fields = schema.fields
    .map((f) => ({ name: f.name, convert: converter(f.type, named) }))
    .filter((f) => !omittedFields(topic).includes(f.name));
  return (value) => {
    const row: Row = {};
    for (const { name, convert } of fields) row[name] = convert ? convert(value[name] as never) : value[name];
    return row;
  };
}

/** What a value must go through to be a ClickHouse JSON value; null where it may stay as it is. */
function converter(type: Avro, named: Map<string, Avro>): Convert | null {
  if (typeof type === 'string') {
    if (type === 'bytes') return ((bytes: Buffer) => bytes.toString('base64')) as Convert;
    const definition = named.get(type);
    return definition ? converter(definition, named) : null;
  }
  if (Array.isArray(type)) {
    const branch = type.find((t) => t !== 'null')!;
    const inner = converter(branch, named);
    const resolved = typeof branch === 'string' ? (named.get(branch) ?? branch) : branch;
    const nested = typeof resolved === 'object' && !Array.isArray(resolved) && resolved.type !== 'enum';
    if (nested)
      return ((value: unknown) => (value === null ? [] : [inner ? inner(value as never) : value])) as Convert;
    return inner ? (((value: unknown) => (value === null ? null : inner(value as never))) as Convert) : null;
  }
  if (type.name) named.set(type.name, type);
  if (type.type === 'array') {
    const inner = converter(type.items!, named);
    return inner ? (((values: unknown[]) => values.map((v) => inner(v as never))) as Convert) : null;
  }
  if (type.type === 'record') {
    const fields = type.fields!.map((f) => ({ name: f.name, convert: converter(f.type, named) }));
    if (fields.every((f) => f.convert === null)) return null;
    return ((value: Record<string, unknown>) => {
      const out: Row = {};
      for (const { name, convert } of fields)
        out[name] = convert ? convert(value[name] as never) : value[name];
      return out;
    }) as Convert;
  }
  return null;
}
