/** Arrays in a WebAssembly memory of their own, beside the functions that work on them. */

/** What is used of the WebAssembly API: the types of Node leave it out. */
interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
declare const WebAssembly: {
  Memory: new (descriptor: { initial: number; maximum: number }) => WasmMemory;
  Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  Instance: new (module: object, imports: { env: { memory: WasmMemory } }) => { exports: unknown };
};

const PAGE = 65_536;
const MAX_PAGES = 65_536;
const VECTOR = 16;

/** A place in a memory: its byte offset, and how many 4-byte numbers it holds. */
export interface Place {
  offset: number;
  length: number;
}

/** Arrays of 4-byte numbers in one memory, at most 4 GiB in all, and the functions `E` of the module over them. */
export class WasmArrays<E> {
  readonly exports: E;
  readonly #memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES });
  #used = VECTOR;

  /** @param module as `wasmModule` writes one */
  constructor(module: Uint8Array<ArrayBuffer>) {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module), {
      env: { memory: this.#memory },
    });
    this.exports = instance.exports as E;
  }

  /**
   * Room for arrays of the given lengths, filled with zeros and padded to whole vectors. Views made before are no longer valid.
   * @throws Error beyond 4 GiB
   */
  reserve(lengths: readonly number[]): Place[] {
    let end = this.#used;
    const places = lengths.map((length) => {
      const offset = end;
      end += Math.ceil((length * 4) / VECTOR) * VECTOR;
      return { offset, length };
    });
    const pages = Math.ceil(end / PAGE);
    if (pages > MAX_PAGES) throw new Error(`${end} bytes are needed, there is room for ${MAX_PAGES * PAGE}`);
    const missing = pages - this.#memory.buffer.byteLength / PAGE;
    if (missing > 0) this.#memory.grow(missing);
    this.#used = end;
    return places;
  }

  /** Forgets all places, and leaves zeros for the next ones. */
  clear(): void {
    new Uint8Array(this.#memory.buffer, 0, this.#used).fill(0);
    this.#used = VECTOR;
  }

  floats({ offset, length }: Place): Float32Array {
    return new Float32Array(this.#memory.buffer, offset, length);
  }
  ints({ offset, length }: Place): Int32Array {
    return new Int32Array(this.#memory.buffer, offset, length);
  }
}
