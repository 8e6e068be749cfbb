/** Rows of numbers as one typed array for each column; a row is its slot number, and freed slots are used again. */
import { letGo } from './let-go.ts';
import type { Sections } from './sections.ts';

type ColumnKind = Float64ArrayConstructor | Int32ArrayConstructor | Uint8ArrayConstructor;
export type Columns<S extends Record<string, ColumnKind>> = { [K in keyof S]: InstanceType<S[K]> };
const FIRST_CAPACITY = 64;
/** With more rows columns grow by a quarter: half of a doubled one may never be used. */
const DOUBLED_BELOW_ROWS = 1 << 14;
const NONE = -1;
const IN_USE = -2;

export class SlotColumns<S extends Record<string, ColumnKind>> {
  readonly #kinds: S;
  /** Each is replaced when it grows, and the old one is empty: read it anew after `add`. */
  of: Columns<S>;
  #capacity = FIRST_CAPACITY;
  /** The next free slot after each free one. */
  #links: Int32Array;
  #free = NONE;
  #end = 0;
  #size = 0;

  constructor(kinds: S) {
    this.#kinds = kinds;
    this.of = this.#allocate(FIRST_CAPACITY);
    this.#links = new Int32Array(FIRST_CAPACITY);
  }

  get size(): number {
    return this.#size;
  }
  /** Slots from here on were never used. */
  get end(): number {
    return this.#end;
  }
  get sizeBytes(): number {
    let sizeBytes = this.#links.byteLength;
    for (const column of Object.values(this.of)) sizeBytes += column.byteLength;
    return sizeBytes;
  }
  isUsed(slot: number): boolean {
    return slot < this.#end && this.#links[slot] === IN_USE;
  }

  /** A slot whose columns hold whatever they held before. */
  add(): number {
    let slot = this.#free;
    if (slot >= 0) this.#free = this.#links[slot]!;
    else {
      if (this.#end === this.#capacity) this.#grow();
      slot = this.#end++;
    }
    this.#links[slot] = IN_USE;
    this.#size++;
    return slot;
  }

  free(slot: number): void {
    this.#links[slot] = this.#free;
    this.#free = slot;
    this.#size--;
  }

  save(name: string, into: Sections): void {
    into.facts[name] = { end: this.#end, free: this.#free, size: this.#size };
    into.put(`${name}.links`, this.#links.subarray(0, this.#end));
    for (const [column, values] of Object.entries(this.of))
      into.put(`${name}.${column}`, values.subarray(0, this.#end));
  }

  load(name: string, from: Sections): void {
    const { end, free, size } = from.fact<{ end: number; free: number; size: number }>(name);
    this.#capacity = Math.max(FIRST_CAPACITY, end);
    this.#end = end;
    this.#free = free;
    this.#size = size;
    this.#links = new Int32Array(this.#capacity);
    copyInto(this.#links, from.get(`${name}.links`));
    this.of = this.#allocate(this.#capacity);
    for (const [column, values] of Object.entries(this.of)) copyInto(values, from.get(`${name}.${column}`));
  }

  /** One column after the other, so that no more than one lies in memory twice. */
  #grow(): void {
    const capacity = Math.ceil(this.#capacity * (this.#capacity < DOUBLED_BELOW_ROWS ? 2 : 1.25));
    for (const [name, Kind] of Object.entries(this.#kinds))
      this.of[name as keyof S] = grown(this.of[name]!, new Kind(capacity)) as Columns<S>[keyof S];
    this.#links = grown(this.#links, new Int32Array(capacity));
    this.#capacity = capacity;
  }

  #allocate(capacity: number): Columns<S> {
    return Object.fromEntries(
      Object.entries(this.#kinds).map(([name, Kind]) => [name, new Kind(capacity)]),
    ) as Columns<S>;
  }
}

function grown<A extends Float64Array | Int32Array | Uint8Array>(from: A, to: A): A {
  to.set(from);
  letGo(from);
  return to;
}

function copyInto(to: Float64Array | Int32Array | Uint8Array, from: Uint8Array): void {
  new Uint8Array(to.buffer, to.byteOffset, to.byteLength).set(from);
}
