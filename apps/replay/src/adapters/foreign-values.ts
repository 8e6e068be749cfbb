/** Values of others' topics: JSON objects, or Avro records in the Confluent wire format. */
import { BadRecordError, schemaIdOf, WIRE_HEADER_BYTES } from '@onemall/contracts';
import avsc, { type Type } from 'avsc';

export class ForeignValues {
  readonly #schemaOf: (id: number) => Promise<unknown>;
  readonly #types = new Map<number, Type>();

  constructor(schemaOf: (id: number) => Promise<unknown>) {
    this.#schemaOf = schemaOf;
  }

  /**
   * Cells by name: nested fields as a.b, lists joined by `separator`.
   * @throws BadRecordError for values that are neither, and for unknown schemas
   */
  async cells(value: Buffer, separator: string): Promise<Record<string, unknown>> {
    const cells: Record<string, unknown> = {};
    flatten(value[0] === 0 ? await this.#avro(value) : json(value), '', separator, cells);
    return cells;
  }

  async #avro(value: Buffer): Promise<unknown> {
    const id = schemaIdOf(value);
    let type = this.#types.get(id);
    if (!type) {
      type = await this.#typeOf(id);
      this.#types.set(id, type);
    }
    try {
      return type.fromBuffer(value.subarray(WIRE_HEADER_BYTES));
    } catch (cause) {
      throw new BadRecordError(
        'UNDECODABLE',
        `Value of ${value.length} bytes does not decode with schema ${id}: ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  async #typeOf(id: number): Promise<Type> {
    const schema = await this.#schemaOf(id);
    try {
      return avsc.Type.forSchema(schema as avsc.Schema);
    } catch (cause) {
      throw new BadRecordError('UNDECODABLE', `Schema ${id} is no Avro schema`, { cause });
    }
  }
}

function json(value: Buffer): unknown {
  try {
    return JSON.parse(value.toString('utf8'));
  } catch (cause) {
    throw new BadRecordError(
      'NOT_WIRE_FORMAT',
      `Expected a JSON object or Confluent wire format, got ${value.length} bytes beginning 0x${value.subarray(0, 8).toString('hex')}`,
      { cause },
    );
  }
}

function flatten(value: unknown, name: string, separator: string, cells: Record<string, unknown>): void {
  if (Array.isArray(value)) cells[name] = value.join(separator);
  else if (typeof value === 'object' && value !== null && !(value instanceof Date) && !Buffer.isBuffer(value))
    for (const [key, part] of Object.entries(value))
      flatten(part, name === '' ? key : `${name}.${key}`, separator, cells);
  else if (name === '')
    throw new BadRecordError('UNDECODABLE', `Expected a record with fields, got ${typeof value}`);
  else cells[name] = value;
}
