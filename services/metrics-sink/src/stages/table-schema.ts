/**
 * ClickHouse tables from the Avro schemas: one table per topic, one column per field.
 *
 * | Avro | ClickHouse |
 * |---|---|
 * | string, enum, bytes | String, LowCardinality(String), String (base64) |
 * | int, long, float, double, boolean | Int32, Int64, Float32, Float64, Bool |
 * | ["null", primitive] | Nullable(primitive) |
 * | array, map | Array, Map(String, ...) |
 * | record | Tuple with names |
 * | ["null", record] | Array(Tuple) with no or one element: ClickHouse knows no nullable tuples |
 *
 * Four columns say where a row comes from: _partition, _offset, _timestamp_ms, _key. ReplacingMergeTree by
 * (_partition, _offset) makes a repeated insert harmless; read with FINAL.
 */
import { fullSchema, type TopicName, topicSpec } from '@onemall/contracts';

type Avro =
  | string
  | Avro[]
  | { type: string; name?: string; fields?: { name: string; type: Avro }[]; items?: Avro; values?: Avro };

export interface Column {
  name: string;
  type: string;
}

/**
 * Fields that stay in Kafka: histories are nine tenths of a sample's bytes and no query reads them.
 */
const OMITTED: Readonly<Record<string, readonly string[]>> = {
  'training-samples': ['history'],
  rollouts: ['history'],
  'reward-batches': ['history'],
};

export const tableName = (topic: TopicName): string => topic.replaceAll('-', '_');
export const omittedFields = (topic: TopicName): readonly string[] => OMITTED[topic] ?? [];

/** @example tableColumns('clicks')[4] // { name: 'actionId', type: 'String' } */
export function tableColumns(topic: TopicName): Column[] {
  const schema = fullSchema(topicSpec(topic).schema) as unknown as { fields: { name: string; type: Avro }[] };
  const named = new Map<string, Avro>();
  return [
    { name: '_partition', type: 'Int32' },
    { name: '_offset', type: 'Int64' },
    { name: '_timestamp_ms', type: 'Int64' },
    { name: '_key', type: 'String' },
    ...schema.fields
      .map((f) => ({ name: f.name, type: columnType(f.type, named) }))
      .filter((c) => !omittedFields(topic).includes(c.name)),
  ];
}

/** Statements that make the table, and add columns that a later schema brought. */
export function tableStatements(database: string, topic: TopicName): string[] {
  const table = `${database}.${tableName(topic)}`;
  const columns = tableColumns(topic);
  return [
    `CREATE TABLE IF NOT EXISTS ${table} (${columns.map((c) => `\`${c.name}\` ${c.type}`).join(', ')}) ` +
      'ENGINE = ReplacingMergeTree ORDER BY (_partition, _offset)',
    `ALTER TABLE ${table} ${columns.map((c) => `ADD COLUMN IF NOT EXISTS \`${c.name}\` ${c.type}`).join(', ')}`,
  ];
}

const PRIMITIVE: Readonly<Record<string, string>> = {
  string: 'String',
  bytes: 'String',
  int: 'Int32',
  long: 'Int64',
  float: 'Float32',
  double: 'Float64',
  boolean: 'Bool',
};

function columnType(type: Avro, named: Map<string, Avro>): string {
  if (typeof type === 'string') {
    const primitive = PRIMITIVE[type];
    if (primitive) return primitive;
    const definition = named.get(type);
    if (!definition) throw new Error(`Avro type ${type} is used before it is defined`);
    return columnType(definition, named);
  }
  if (Array.isArray(type)) {
    const branches = type.filter((t) => t !== 'null');
    if (branches.length !== 1) throw new Error(`No column for the union ${JSON.stringify(type)}`);
    const inner = columnType(branches[0]!, named);
    return inner.startsWith('Tuple') || inner.startsWith('Array') || inner.startsWith('Map')
      ? `Array(${inner})`
      : inner.startsWith('LowCardinality')
        ? 'LowCardinality(Nullable(String))'
        : `Nullable(${inner})`;
  }
  if (type.name) named.set(type.name, type);
  switch (type.type) {
    case 'enum':
      return 'LowCardinality(String)';
    case 'array':
      return `Array(${columnType(type.items!, named)})`;
    case 'map':
      return `Map(String, ${columnType(type.values!, named)})`;
    case 'record':
      return `Tuple(${type.fields!.map((f) => `${f.name} ${columnType(f.type, named)}`).join(', ')})`;
    default:
      return columnType(type.type, named);
  }
}
