/** What a search does to single rows, as WebAssembly with 128-bit vectors: a sixth of the time of JavaScript, the same bits on every machine. */
import { Code, type Place, WasmArrays, type WasmFunction, wasmModule } from '@onemall/learning/wasm';

const VECTOR = 16;
/** Scores that one call of `above` looks at. */
export const SCORES_AT_ONCE = 32;
/** The uint8 that stands for zero. */
export const BYTE_ZERO = 128;

/** Places are byte offsets; sizes are bytes of whole vectors. */
interface Exports {
  greatest(x: number, shift: number, size: number): number;
  round(
    x: number,
    shift: number,
    bytes: number,
    facts: number,
    size: number,
    perScale: number,
    scale: number,
  ): void;
  distance(a: number, b: number, size: number): number;
  above(scores: number, limit: number): number;
}

/** Numbers of a row in memory: rows are padded with zeros to whole vectors. */
export const paddedDim = (dim: number): number => Math.ceil((dim * 4) / VECTOR) * (VECTOR / 4);

export class RowKernels {
  readonly #arrays = new WasmArrays<Exports>(MODULE);
  readonly #exports = this.#arrays.exports;
  #facts: Float64Array = new Float64Array(0);
  #factsAt = 0;

  /** Each memory takes gigabytes of address space, of which a process has not endlessly many: those that are given back are used again. */
  static readonly #idle: RowKernels[] = [];
  static take(): RowKernels {
    return RowKernels.#idle.pop() ?? new RowKernels();
  }
  giveBack(): void {
    this.#arrays.clear();
    RowKernels.#idle.push(this);
  }

  /** Room for arrays of 4-byte numbers, zeros at first. Once per search: views made before are no longer valid. */
  reserve(lengths: readonly number[]): Place[] {
    const [facts, ...places] = this.#arrays.reserve([2 * FACTS, ...lengths]);
    this.#factsAt = facts!.offset;
    const { buffer } = this.#arrays.floats(facts!);
    this.#facts = new Float64Array(buffer, facts!.offset, FACTS);
    return places;
  }
  floats(place: Place): Float32Array {
    return this.#arrays.floats(place);
  }
  bytes({ offset, length }: Place): Uint8Array {
    return new Uint8Array(this.#facts.buffer, offset, length * 4);
  }

  /** The largest |x - shift| of a row. */
  greatest(x: number, shift: number, size: number): number {
    return this.#exports.greatest(x, shift, size);
  }
  /**
   * (x - shift) / scale as integers, 128 for zero; at most 127 steps from it.
   * @returns squared lengths, in float64: of x - shift, of what the integers stand for, of the difference; good until the next call
   */
  round(x: number, shift: number, bytes: number, size: number, scale: number): Float64Array {
    this.#exports.round(x, shift, bytes, this.#factsAt, size, 1 / scale, scale);
    return this.#facts;
  }
  /** As `squaredDistance`, bit by bit. */
  distance(a: number, b: number, size: number): number {
    return this.#exports.distance(a, b, size);
  }
  /** Bit i is set where the i-th of 32 scores is not below the limit. */
  above(scores: number, limit: number): number {
    return this.#exports.above(scores, limit);
  }
}

const FACTS = 4;

/** Lanes 0 and 1, or 2 and 3, of four float32 in float64. */
const half = (c: Code, local: number, high: boolean): Code => {
  c.get(local);
  if (high) c.get(local).swapHalves();
  return c.op('f64x2.promote_low_f32x4');
};
const sumOfLanes = (c: Code, local: number): Code =>
  c.get(local).op('f64x2.extract_lane 0').get(local).op('f64x2.extract_lane 1', 'f64.add');

function greatest(): WasmFunction {
  const [x, shift, end, found] = [0, 1, 2, 3];
  const code = new Code().get(x).get(end).op('i32.add').set(end);
  code.repeat(x, VECTOR, end, (c) => {
    c.get(x).loadVector().get(shift).loadVector().op('f32x4.sub', 'f32x4.abs');
    c.get(found).op('f32x4.max').set(found);
    c.get(shift).int(VECTOR).op('i32.add').set(shift);
  });
  code.get(found).op('f32x4.extract_lane 0').get(found).op('f32x4.extract_lane 1', 'f32.max');
  code.get(found).op('f32x4.extract_lane 2', 'f32.max').get(found).op('f32x4.extract_lane 3', 'f32.max');
  return { name: 'greatest', parameters: ['i32', 'i32', 'i32'], results: ['f32'], locals: ['v128'], code };
}

function round(): WasmFunction {
  const [x, shift, bytes, facts, end, perScale1, scale1] = [0, 1, 2, 3, 4, 5, 6];
  const [perScale, scale, zero, nearest, four, minus, value, low] = [7, 8, 9, 10, 11, 12, 13, 14];
  const [high, rounded, squares, kept, lost] = [15, 16, 17, 18, 19];
  const code = new Code().get(x).get(end).op('i32.add').set(end);
  code.get(perScale1).op('f64x2.splat').set(perScale).get(scale1).op('f64x2.splat').set(scale);
  code.float64(BYTE_ZERO).op('f64x2.splat').set(zero);
  // Halves go up: what is cut off is never negative.
  code.float64(BYTE_ZERO + 1 / 2);
  code.op('f64x2.splat').set(nearest);
  code.repeat(x, VECTOR, end, (c) => {
    c.get(x).loadVector().set(four).get(shift).loadVector().set(minus);
    for (const integers of [low, high]) {
      half(c, four, integers === high);
      half(c, minus, integers === high)
        .op('f64x2.sub')
        .tee(value);
      c.get(value).op('f64x2.mul').get(squares).op('f64x2.add').set(squares);
      c.get(value).get(perScale).op('f64x2.mul').get(nearest).op('f64x2.add', 'i32x4.trunc_sat_f64x2_s_zero');
      c.tee(integers).op('f64x2.convert_low_i32x4_s').get(zero).op('f64x2.sub').get(scale).op('f64x2.mul');
      c.tee(rounded).get(rounded).op('f64x2.mul').get(kept).op('f64x2.add').set(kept);
      c.get(value).get(rounded).op('f64x2.sub').tee(value).get(value).op('f64x2.mul');
      c.get(lost).op('f64x2.add').set(lost);
    }
    c.get(bytes).get(low).get(high).joinHalves().tee(four).get(four).op('i16x8.narrow_i32x4_s').tee(four);
    c.get(four).op('i8x16.narrow_i16x8_u', 'i32x4.extract_lane 0').storeInt();
    c.get(bytes).int(4).op('i32.add').set(bytes);
    c.get(shift).int(VECTOR).op('i32.add').set(shift);
  });
  for (const [i, sum] of [squares, kept, lost].entries())
    sumOfLanes(code.get(facts), sum).storeFloat64(8 * i);
  return {
    name: 'round',
    parameters: ['i32', 'i32', 'i32', 'i32', 'i32', 'f64', 'f64'],
    results: [],
    locals: Array<'v128'>(13).fill('v128'),
    code,
  };
}

function distance(): WasmFunction {
  const [a, b, end, even, odd, fourA, fourB, difference] = [0, 1, 2, 3, 4, 5, 6, 7];
  const code = new Code().get(a).get(end).op('i32.add').set(end);
  code.repeat(a, VECTOR, end, (c) => {
    c.get(a).loadVector().set(fourA).get(b).loadVector().set(fourB);
    for (const [sum, high] of [
      [even, false],
      [odd, true],
    ] as const) {
      half(c, fourA, high);
      half(c, fourB, high).op('f64x2.sub').tee(difference).get(difference).op('f64x2.mul');
      c.get(sum).op('f64x2.add').set(sum);
    }
    c.get(b).int(VECTOR).op('i32.add').set(b);
  });
  code.get(even).get(odd).op('f64x2.add').set(even);
  sumOfLanes(code, even);
  return {
    name: 'distance',
    parameters: ['i32', 'i32', 'i32'],
    results: ['f64'],
    locals: Array<'v128'>(5).fill('v128'),
    code,
  };
}

function above(): WasmFunction {
  const [scores, limit1, limit] = [0, 1, 2];
  const code = new Code().get(limit1).op('f32x4.splat').set(limit);
  for (let i = 0; i < SCORES_AT_ONCE / 4; i++) {
    code
      .get(scores)
      .loadVector(i * VECTOR)
      .get(limit)
      .op('f32x4.ge', 'i32x4.bitmask');
    if (i > 0)
      code
        .int(4 * i)
        .op('i32.shl')
        .op('i32.or');
  }
  return { name: 'above', parameters: ['i32', 'f32'], results: ['i32'], locals: ['v128'], code };
}

const MODULE = wasmModule([greatest(), round(), distance(), above()]);
