/**
 * The .avsc files in schemas/ as self-contained Avro schemas.
 *
 * A file may name a type that another file defines (TrainingSample holds an Exposure). Registries and readers get
 * one schema with everything inside: each named type is written out where it first appears.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Schema } from 'avsc';

export type AvroField = { name: string; type: AvroSchema; doc?: string; default?: unknown };
export type AvroSchema =
  | string
  | AvroSchema[]
  | {
      type: string;
      name?: string;
      namespace?: string;
      doc?: string;
      fields?: AvroField[];
      symbols?: string[];
      items?: AvroSchema;
      values?: AvroSchema;
    };

export const SCHEMA_FOLDER = fileURLToPath(new URL('../../../schemas/', import.meta.url));
const PRIMITIVES = new Set(['null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string']);

const files = new Map<string, AvroSchema>();
const named = new Map<string, AvroSchema>();
for (const file of readdirSync(SCHEMA_FOLDER).sort()) {
  if (!file.endsWith('.avsc')) continue;
  const schema = JSON.parse(readFileSync(SCHEMA_FOLDER + file, 'utf8')) as AvroSchema;
  files.set(file.slice(0, -'.avsc'.length), schema);
  collectNamed(schema, file);
}

/** Names of all value schemas: the file names in schemas/ without their ending. */
export const schemaNames = (): string[] => [...files.keys()];

/** The schema as its file has it, with references to other files left as names. */
export const schemaFile = (name: string): AvroSchema => required(files.get(name), name);

/**
 * The schema with every referenced type written out where it first appears.
 * @throws Error if no such file exists or a reference leads nowhere.
 */
export function fullSchema(name: string): Schema {
  return inline(schemaFile(name), new Set()) as unknown as Schema;
}

function collectNamed(schema: AvroSchema, file: string): void {
  if (typeof schema === 'string') return;
  if (Array.isArray(schema)) {
    for (const branch of schema) collectNamed(branch, file);
    return;
  }
  if (schema.name !== undefined) {
    if (named.has(schema.name))
      throw new Error(`schemas/${file} defines ${schema.name} a second time: name the type instead`);
    named.set(schema.name, schema);
  }
  for (const field of schema.fields ?? []) collectNamed(field.type, file);
  if (schema.items !== undefined) collectNamed(schema.items, file);
  if (schema.values !== undefined) collectNamed(schema.values, file);
}

function inline(schema: AvroSchema, written: Set<string>): AvroSchema {
  if (typeof schema === 'string') {
    if (PRIMITIVES.has(schema) || written.has(schema)) return schema;
    return inline(required(named.get(schema), schema), written);
  }
  if (Array.isArray(schema)) return schema.map((s) => inline(s, written));
  if (schema.name !== undefined) {
    if (written.has(schema.name)) return schema.name;
    written.add(schema.name);
  }
  return {
    ...schema,
    ...(schema.fields && { fields: schema.fields.map((f) => ({ ...f, type: inline(f.type, written) })) }),
    ...(schema.items !== undefined && { items: inline(schema.items, written) }),
    ...(schema.values !== undefined && { values: inline(schema.values, written) }),
  };
}

function required(schema: AvroSchema | undefined, name: string): AvroSchema {
  if (schema === undefined)
    throw new Error(`No Avro type ${name} in schemas/: known are ${[...named.keys()].join(', ')}`);
  return schema;
}
