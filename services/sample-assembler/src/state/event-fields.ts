/**
 * Where the fields of an Exposure, Click or Buy lie in Avro bytes of this build's schema. Nothing is decoded into
 * objects. A read that answers false is not yet bad input: the caller decodes by the schema and gets the exact reason,
 * or a value that is fine but unusual.
 */
import { AvroReader } from '@onemall/contracts';
import { equalBytes } from '../bytes/hash.ts';

/** Ids of at most so many characters are valid; so many bytes have at most as many characters. */
const MAX_ID_BYTES = 512;

class Fields {
  protected readonly reader = new AvroReader();
  bytes: Uint8Array = this.reader.bytes;
  start = 0;
  end = 0;
  idAt = 0;
  idLength = 0;
  userAt = 0;
  userLength = 0;
  itemAt = 0;
  itemLength = 0;
  timeMs = 0;

  protected begin(bytes: Uint8Array, start: number, end: number): AvroReader {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    return this.reader.on(bytes, start, end);
  }
}

export class ExposureFields extends Fields {
  scenarioAt = 0;
  scenarioLength = 0;
  requestAt = 0;
  requestLength = 0;
  requestTimeMs = 0;
  /** Where requestId begins, with its length before it. */
  requestFrom = 0;
  /** Where requestTimeMs ends. */
  headEnd = 0;

  /** Up to headEnd. */
  readHead(bytes: Uint8Array, start: number, end: number): boolean {
    const reader = this.begin(bytes, start, end);
    this.#readIds();
    this.scenarioLength = reader.string();
    this.scenarioAt = reader.at - this.scenarioLength;
    this.timeMs = reader.long();
    this.#readRequest();
    this.requestTimeMs = reader.long();
    this.headEnd = reader.at;
    return reader.ok;
  }

  /** The ids of exposure, user and item, then that of the request: what `KnownExposures` keeps. */
  readKept(bytes: Uint8Array, start: number): AvroReader {
    const reader = this.begin(bytes, start, bytes.length);
    this.#readIds();
    this.#readRequest();
    return reader;
  }

  #readIds(): void {
    const { reader } = this;
    this.idLength = reader.string();
    this.idAt = reader.at - this.idLength;
    this.userLength = reader.string();
    this.userAt = reader.at - this.userLength;
    this.itemLength = reader.string();
    this.itemAt = reader.at - this.itemLength;
  }
  #readRequest(): void {
    const { reader } = this;
    this.requestFrom = reader.at;
    this.requestLength = reader.string();
    this.requestAt = reader.at - this.requestLength;
  }

  /** Everything: well-formed, no byte left over, and nothing that validation could refuse but times, key and scenario. */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    if (!this.readHead(bytes, start, end)) return false;
    const { reader } = this;
    const position = reader.long();
    const watchMs = reader.isSome() ? reader.long() : 0;
    const priceCents = reader.long();
    if (!(position >= 0 && watchMs >= 0 && priceCents >= 0)) return false;
    if (!isId(this.idLength) || !isId(this.userLength) || !isId(this.itemLength) || !isId(this.requestLength))
      return false;
    this.#skipInts();
    return this.#skipFiniteFloats() && reader.ok && reader.at === end;
  }

  #skipInts(): void {
    const { reader } = this;
    for (let count = reader.long(); reader.ok && count !== 0; count = reader.long()) {
      if (count < 0) {
        reader.skip(reader.long());
        continue;
      }
      const { bytes } = reader;
      let { at } = reader;
      for (; count > 0 && at < reader.end; at++) if (bytes[at]! < 0x80) count--;
      if (count > 0) reader.ok = false;
      reader.at = at;
    }
  }

  #skipFiniteFloats(): boolean {
    const { reader } = this;
    for (let count = reader.long(); reader.ok && count !== 0; count = reader.long()) {
      if (count < 0) {
        count = -count;
        reader.long();
      }
      const from = reader.at;
      reader.skip(4 * count);
      if (!reader.ok) return false;
      // An exponent of all ones is NaN or infinite.
      for (let at = from; at < reader.at; at += 4)
        if ((reader.bytes[at + 3]! & 0x7f) === 0x7f && reader.bytes[at + 2]! >= 0x80) return false;
    }
    return true;
  }
}

export class ActionFields extends Fields {
  /** -1 where the action names none. */
  exposureLength = -1;
  exposureAt = 0;
  /** 0 for a click. */
  priceCents = 0;
  quantity = 0;

  /** Well-formed and no byte left over. */
  locate(bytes: Uint8Array, start: number, end: number, isBuy: boolean): boolean {
    const reader = this.begin(bytes, start, end);
    this.idLength = reader.string();
    this.idAt = reader.at - this.idLength;
    this.exposureLength = reader.isSome() ? reader.string() : -1;
    this.exposureAt = reader.at - this.exposureLength;
    this.userLength = reader.string();
    this.userAt = reader.at - this.userLength;
    this.itemLength = reader.string();
    this.itemAt = reader.at - this.itemLength;
    this.timeMs = reader.long();
    this.priceCents = isBuy ? reader.long() : 0;
    this.quantity = isBuy ? reader.long() : 0;
    return reader.ok && reader.at === end;
  }

  /** And nothing that validation could refuse but time and key. */
  read(bytes: Uint8Array, start: number, end: number, isBuy: boolean): boolean {
    return (
      this.locate(bytes, start, end, isBuy) &&
      isId(this.idLength) &&
      isId(this.userLength) &&
      isId(this.itemLength) &&
      (this.exposureLength === -1 || isId(this.exposureLength)) &&
      this.priceCents >= 0 &&
      (!isBuy || this.quantity >= 1)
    );
  }
}

const isId = (length: number): boolean => length > 0 && length <= MAX_ID_BYTES;

/** The number of the scenario with this name in UTF-8, or -1. */
export class ScenarioNames {
  readonly #names: Uint8Array[];
  constructor(names: readonly string[]) {
    this.#names = names.map((name) => Buffer.from(name));
  }
  numberOf(bytes: Uint8Array, start: number, length: number): number {
    const names = this.#names;
    for (let i = 0; i < names.length; i++)
      if (names[i]!.length === length && equalBytes(names[i]!, 0, bytes, start, length)) return i;
    return -1;
  }
}
