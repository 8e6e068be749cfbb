/**
 * The parts of a step that onnxruntime's CPU provider has no kernel for, as WebAssembly with 128-bit vectors: AdamW in one
 * pass over the weights (ONNX nodes need thirteen), the gradient norm, and the sum of gradient rows into a table (its own
 * ScatterND loses additions between threads). One thread, and the same bits on every machine.
 */
import { type Place, WasmArrays } from './wasm-arrays.ts';
import { Code, type WasmFunction, wasmModule } from './wasm-module.ts';

const VECTOR = 16;
/** Moments below this are set to zero: they change no weight, and denormal numbers are slow. */
const NEGLIGIBLE = 1e-30;

interface Exports {
  /** Places are byte offsets, counts are bytes. */
  sumOfSquares(x: number, size: number): number;
  adamw(
    weight: number,
    moment1: number,
    moment2: number,
    gradient: number,
    size: number,
    beta1: number,
    gain1: number,
    beta2: number,
    gain2: number,
    stepSize: number,
    smallest: number,
    shrink: number,
    negligible: number,
  ): void;
  addRows(table: number, ids: number, rows: number, idsSize: number, rowSize: number): void;
}

export interface AdamWFactors {
  beta1: number;
  /** (1 - beta1) x clip factor */
  gain1: number;
  beta2: number;
  /** (1 - beta2) x clip factor^2 */
  gain2: number;
  /** learning rate x sqrt(1 - beta2^t) / (1 - beta1^t) */
  stepSize: number;
  /** epsilon x sqrt(1 - beta2^t) */
  smallest: number;
  /** 1 - learning rate x decay */
  shrink: number;
}

const paddedBytes = (length: number): number => Math.ceil((length * 4) / VECTOR) * VECTOR;

/** Arrays of 4-byte numbers in one WebAssembly memory, at most 4 GiB in all, and kernels over them. */
export class KernelMemory {
  readonly #arrays = new WasmArrays<Exports>(MODULE);
  readonly #exports = this.#arrays.exports;

  /** As `WasmArrays.reserve`. @throws Error beyond 4 GiB */
  reserve(lengths: readonly number[]): Place[] {
    try {
      return this.#arrays.reserve(lengths);
    } catch (error) {
      throw new Error(
        `Weights, moments and gradients do not fit: ${(error as Error).message}. Choose a smaller preset or smaller tables.`,
        { cause: error },
      );
    }
  }
  floats(place: Place): Float32Array {
    return this.#arrays.floats(place);
  }
  ints(place: Place): Int32Array {
    return this.#arrays.ints(place);
  }

  /** In float64. */
  sumOfSquares(x: Float32Array): number {
    return this.#exports.sumOfSquares(x.byteOffset, paddedBytes(x.length));
  }
  /** m = beta1 m + gain1 g; v = beta2 v + gain2 g^2; w = shrink w - stepSize m / (sqrt(v) + smallest), in place. */
  adamw(w: Float32Array, m: Float32Array, v: Float32Array, g: Float32Array, factors: AdamWFactors): void {
    const { beta1, gain1, beta2, gain2, stepSize, smallest, shrink } = factors;
    const places = [w.byteOffset, m.byteOffset, v.byteOffset, g.byteOffset] as const;
    const size = paddedBytes(w.length);
    this.#exports.adamw(...places, size, beta1, gain1, beta2, gain2, stepSize, smallest, shrink, NEGLIGIBLE);
  }
  /** table[ids[i]] += rows[i], row after row. ids in range is the caller's promise. */
  addRows(table: Float32Array, ids: Int32Array, rows: Float32Array): void {
    const dim = rows.length / ids.length;
    if ((dim * 4) % VECTOR === 0)
      this.#exports.addRows(table.byteOffset, ids.byteOffset, rows.byteOffset, ids.length * 4, dim * 4);
    else
      ids.forEach((id, row) => {
        for (let i = 0; i < dim; i++) table[id * dim + i]! += rows[row * dim + i]!;
      });
  }
}

function sumOfSquares(): WasmFunction {
  const [x, end, low, high, four, two] = [0, 1, 2, 3, 4, 5];
  const code = new Code().get(x).get(end).op('i32.add').set(end);
  code.repeat(x, VECTOR, end, (c) => {
    c.get(x).loadVector().tee(four).op('f64x2.promote_low_f32x4').tee(two).get(two).op('f64x2.mul');
    c.get(low).op('f64x2.add').set(low);
    c.get(four).get(four).swapHalves().op('f64x2.promote_low_f32x4').tee(two).get(two).op('f64x2.mul');
    c.get(high).op('f64x2.add').set(high);
  });
  code.get(low).get(high).op('f64x2.add').set(low);
  code.get(low).op('f64x2.extract_lane 0').get(low).op('f64x2.extract_lane 1', 'f64.add');
  return {
    name: 'sumOfSquares',
    parameters: ['i32', 'i32'],
    results: ['f64'],
    locals: ['v128', 'v128', 'v128', 'v128'],
    code,
  };
}

function adamw(): WasmFunction {
  const [w, m, v, g, size] = [0, 1, 2, 3, 4];
  const scalars = 8;
  const [beta1, gain1, beta2, gain2, stepSize, smallest, shrink, negligible] = Array.from(
    { length: scalars },
    (_, i) => 5 + scalars + i,
  ) as [number, number, number, number, number, number, number, number];
  const at = 5 + 2 * scalars;
  const [next1, next2, gradient] = [at + 1, at + 2, at + 3];
  const code = new Code();
  for (let i = 0; i < scalars; i++)
    code
      .get(5 + i)
      .op('f32x4.splat')
      .set(5 + scalars + i);
  const place = (c: Code, base: number): Code => c.get(base).get(at).op('i32.add');
  /** Zero where negligible. */
  const kept = (c: Code, x: number): Code =>
    c.get(x).get(x).op('f32x4.abs').get(negligible).op('f32x4.gt', 'v128.and');
  code.repeat(at, VECTOR, size, (c) => {
    place(c, g).loadVector().set(gradient);
    place(c, m).loadVector().get(beta1).op('f32x4.mul').get(gradient).get(gain1);
    c.op('f32x4.mul', 'f32x4.add').set(next1);
    place(c, m);
    kept(c, next1).tee(next1).storeVector();
    place(c, v).loadVector().get(beta2).op('f32x4.mul').get(gradient).get(gradient);
    c.op('f32x4.mul').get(gain2).op('f32x4.mul', 'f32x4.add').set(next2);
    place(c, v);
    kept(c, next2).tee(next2).storeVector();
    place(c, w);
    place(c, w).loadVector().get(shrink).op('f32x4.mul').get(stepSize).get(next1).op('f32x4.mul').get(next2);
    c.op('f32x4.sqrt').get(smallest).op('f32x4.add', 'f32x4.div', 'f32x4.sub').storeVector();
  });
  return {
    name: 'adamw',
    parameters: ['i32', 'i32', 'i32', 'i32', 'i32', ...Array<'f32'>(scalars).fill('f32')],
    results: [],
    locals: [...Array<'v128'>(scalars).fill('v128'), 'i32', 'v128', 'v128', 'v128'],
    code,
  };
}

function addRows(): WasmFunction {
  const [table, ids, rows, idsEnd, rowSize, target, rowsEnd] = [0, 1, 2, 3, 4, 5, 6];
  const code = new Code().get(ids).get(idsEnd).op('i32.add').set(idsEnd);
  code.repeat(ids, 4, idsEnd, (row) => {
    row.get(table).get(ids).loadInt().get(rowSize).op('i32.mul', 'i32.add').set(target);
    row.get(rows).get(rowSize).op('i32.add').set(rowsEnd);
    row.repeat(rows, VECTOR, rowsEnd, (c) => {
      c.get(target).get(target).loadVector().get(rows).loadVector().op('f32x4.add').storeVector();
      c.get(target).int(VECTOR).op('i32.add').set(target);
    });
  });
  return {
    name: 'addRows',
    parameters: ['i32', 'i32', 'i32', 'i32', 'i32'],
    results: [],
    locals: ['i32', 'i32'],
    code,
  };
}

const MODULE = wasmModule([sumOfSquares(), adamw(), addRows()]);
