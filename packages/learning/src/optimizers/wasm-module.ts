/**
 * Writes a WebAssembly module (core specification 2.0, binary format) of functions that walk over arrays of one imported
 * memory with 128-bit vectors. Only what the kernels of this package and of quantization need.
 */

const text = new TextEncoder();
const MAX_PAGES = 65_536;

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}
function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const byte = rest & 127;
    rest >>= 7;
    if ((rest === 0 && (byte & 64) === 0) || (rest === -1 && (byte & 64) !== 0)) return [...bytes, byte];
    bytes.push(byte | 128);
  }
}
const vector = (items: readonly (readonly number[])[]): number[] => [
  ...unsigned(items.length),
  ...items.flat(),
];
const bytesOf = (name: string): number[] => {
  const bytes = text.encode(name);
  return [...unsigned(bytes.length), ...bytes];
};
const section = (id: number, content: readonly number[]): number[] => [
  id,
  ...unsigned(content.length),
  ...content,
];

const VALUE_TYPE = { i32: 0x7f, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;
export type ValueType = keyof typeof VALUE_TYPE;

const simd = (code: number): number[] => [0xfd, ...unsigned(code)];
/** Instructions without immediates. */
const PLAIN = {
  'i32.add': [0x6a],
  'i32.mul': [0x6c],
  'i32.lt_u': [0x49],
  'i32.or': [0x72],
  'i32.shl': [0x74],
  'f32.max': [0x97],
  'f32x4.splat': simd(0x13),
  'f64x2.splat': simd(0x14),
  'i32x4.extract_lane 0': [...simd(0x1b), 0],
  'f32x4.extract_lane 0': [...simd(0x1f), 0],
  'f32x4.extract_lane 1': [...simd(0x1f), 1],
  'f32x4.extract_lane 2': [...simd(0x1f), 2],
  'f32x4.extract_lane 3': [...simd(0x1f), 3],
  'f64x2.extract_lane 0': [...simd(0x21), 0],
  'f64x2.extract_lane 1': [...simd(0x21), 1],
  'f32x4.gt': simd(0x44),
  'f32x4.ge': simd(0x46),
  'v128.and': simd(0x4e),
  'f64x2.promote_low_f32x4': simd(0x5f),
  'i8x16.narrow_i16x8_u': simd(0x66),
  'i16x8.narrow_i32x4_s': simd(0x85),
  'i32x4.bitmask': simd(0xa4),
  'f32x4.abs': simd(0xe0),
  'f32x4.sqrt': simd(0xe3),
  'f32x4.add': simd(0xe4),
  'f32x4.sub': simd(0xe5),
  'f32x4.mul': simd(0xe6),
  'f32x4.div': simd(0xe7),
  'f32x4.max': simd(0xe9),
  'f64x2.add': simd(0xf0),
  'f64x2.sub': simd(0xf1),
  'f64x2.mul': simd(0xf2),
  'i32x4.trunc_sat_f64x2_s_zero': simd(0xfc),
  'f64x2.convert_low_i32x4_s': simd(0xfe),
  'f64.add': [0xa0],
} as const;
/** Lanes 2 and 3 to the places of 0 and 1. */
const SWAP_HALVES = [...simd(0x0d), ...Array.from({ length: 16 }, (_, i) => (i + 8) % 16)];
/** Of two vectors the first halves, one behind the other. */
const JOIN_HALVES = [...simd(0x0d), ...Array.from({ length: 16 }, (_, i) => (i < 8 ? i : i + 8))];

/** The body of one function, instruction by instruction. Locals are numbered from 0, parameters first. */
export class Code {
  readonly bytes: number[] = [];

  get(local: number): this {
    this.bytes.push(0x20, ...unsigned(local));
    return this;
  }
  set(local: number): this {
    this.bytes.push(0x21, ...unsigned(local));
    return this;
  }
  tee(local: number): this {
    this.bytes.push(0x22, ...unsigned(local));
    return this;
  }
  int(value: number): this {
    this.bytes.push(0x41, ...signed(value));
    return this;
  }
  float64(value: number): this {
    this.bytes.push(0x44, ...new Uint8Array(Float64Array.of(value).buffer));
    return this;
  }
  op(...names: (keyof typeof PLAIN)[]): this {
    for (const name of names) this.bytes.push(...PLAIN[name]);
    return this;
  }
  swapHalves(): this {
    this.bytes.push(...SWAP_HALVES);
    return this;
  }
  joinHalves(): this {
    this.bytes.push(...JOIN_HALVES);
    return this;
  }
  loadInt(): this {
    this.bytes.push(0x28, 2, 0);
    return this;
  }
  /** @param offset bytes beyond the place on the stack */
  loadVector(offset = 0): this {
    this.bytes.push(...simd(0x00), 4, ...unsigned(offset));
    return this;
  }
  storeInt(): this {
    this.bytes.push(0x36, 2, 0);
    return this;
  }
  storeFloat64(offset = 0): this {
    this.bytes.push(0x39, 3, ...unsigned(offset));
    return this;
  }
  storeVector(): this {
    this.bytes.push(...simd(0x0b), 4, 0);
    return this;
  }
  /** Repeats `body` with local `at` from its present value in strides while it is below local `end`; at least once. */
  repeat(at: number, stride: number, end: number, body: (code: Code) => void): this {
    this.bytes.push(0x03, 0x40);
    body(this);
    this.get(at).int(stride).op('i32.add').tee(at).get(end).op('i32.lt_u');
    this.bytes.push(0x0d, 0, 0x0b);
    return this;
  }
}

export interface WasmFunction {
  name: string;
  parameters: readonly ValueType[];
  results: readonly ValueType[];
  locals: readonly ValueType[];
  code: Code;
}

/** A module that imports env.memory and exports the functions. */
export function wasmModule(functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> {
  const types = (list: readonly ValueType[]): number[] => vector(list.map((t) => [VALUE_TYPE[t]]));
  const bodies = functions.map(({ locals, code }) => {
    const body = [...vector(locals.map((t) => [1, VALUE_TYPE[t]])), ...code.bytes, 0x0b];
    return [...unsigned(body.length), ...body];
  });
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector(functions.map((f) => [0x60, ...types(f.parameters), ...types(f.results)]))),
    ...section(2, vector([[...bytesOf('env'), ...bytesOf('memory'), 0x02, 0x01, 0, ...unsigned(MAX_PAGES)]])),
    ...section(3, vector(functions.map((_, i) => unsigned(i)))),
    ...section(7, vector(functions.map((f, i) => [...bytesOf(f.name), 0x00, ...unsigned(i)]))),
    ...section(10, vector(bodies)),
  ]);
}
