/** Values of others' topics: JSON objects, or Avro records in the Confluent wire format. */
import { BadRecordError, schemaIdOf, WIRE_HEADER_BYTES } from '@onemall/contracts';
import type { Clock } from '@onemall/service-kit';
import avsc, { type Type } from 'avsc';

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 5_000;

export class ForeignValues {
  readonly #registryUrl: string;
  readonly #clock: Clock;
  readonly #stopping: AbortSignal;
  readonly #types = new Map<number, Type>();

  constructor(options: { registryUrl: string; clock: Clock; stopping: AbortSignal }) {
    this.#registryUrl = options.registryUrl.replace(/\/$/, '');
    this.#clock = options.clock;
    this.#stopping = options.stopping;
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
      type = await this.#lookUp(id);
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

  /** Waits while the registry is away. */
  async #lookUp(id: number): Promise<Type> {
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(MAX_BACKOFF_MS, 2 * backoffMs)) {
      const answer = await fetch(`${this.#registryUrl}/schemas/ids/${id}`, { signal: this.#stopping }).catch(
        () => undefined,
      );
      this.#stopping.throwIfAborted();
      if (answer?.ok) {
        const { schema } = (await answer.json()) as { schema: string };
        try {
          return avsc.Type.forSchema(JSON.parse(schema));
        } catch (cause) {
          throw new BadRecordError('UNKNOWN_SCHEMA', `Schema ${id} is no Avro schema`, { cause });
        }
      }
      if (answer && answer.status < 500 && answer.status !== 408 && answer.status !== 429)
        throw new BadRecordError(
          'UNKNOWN_SCHEMA',
          `Expected a schema id that the registry at ${this.#registryUrl} knows, got ${id}`,
        );
      await this.#clock.sleep(backoffMs, this.#stopping);
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
