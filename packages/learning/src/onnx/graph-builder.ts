/**
 * Emits nodes of a static ONNX graph. Nothing here knows about gradients; onnx/graph.ts puts them on top.
 * Every operator used has a kernel in onnxruntime's CPU provider; most have one in WebGPU and CUDA too.
 */
import {
  dataTypeOf,
  encodeOnnx,
  type OnnxAttribute,
  type OnnxNode,
  type OnnxTensor,
  type OnnxType,
  type OnnxValueInfo,
} from './protobuf.ts';

/** A value of the graph. */
export interface Value {
  name: string;
  readonly shape: readonly number[];
  readonly type: OnnxType;
  /** Whether a parameter has a part in it. */
  needsGradient: boolean;
}

export type Attributes = Record<string, OnnxAttribute>;
export const int = (value: number): OnnxAttribute => ({ kind: 'int', value });
export const float = (value: number): OnnxAttribute => ({ kind: 'float', value });

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
export const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((x, i) => x === b[i]);

/** Shape of a binary operation on a and b. @throws Error when they do not broadcast */
export function broadcastShape(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new Error(`Shapes [${a}] and [${b}] do not broadcast`);
    return Math.max(x, y);
  });
}

export interface BuilderOptions {
  /**
   * Only standard operators, so that any runtime loads the graph. Without it batched products with a transposed side use
   * onnxruntime's FusedMatMul, which saves the copy.
   */
  portable: boolean;
}

export class GraphBuilder {
  readonly #options: BuilderOptions;
  readonly #nodes: OnnxNode[] = [];
  readonly #initializers: OnnxTensor[] = [];
  readonly #inputs: OnnxValueInfo[] = [];
  readonly #outputs: OnnxValueInfo[] = [];
  readonly #constants = new Map<string, Value>();
  readonly #computed = new Set<string>();
  /** Values that leave the graph -> the name they leave under: an Identity node would copy them. */
  readonly #returned = new Map<string, string>();
  #nextId = 0;

  constructor(options: BuilderOptions) {
    this.#options = options;
  }

  get portable(): boolean {
    return this.#options.portable;
  }
  get nodeCount(): number {
    return this.#nodes.length;
  }

  // --- values from outside
  input(name: string, shape: readonly number[], type: OnnxType): Value {
    this.#inputs.push({ name, shape, type });
    return { name, shape, type, needsGradient: false };
  }
  initializer(name: string, shape: readonly number[], type: OnnxType, data: OnnxTensor['data']): Value {
    this.#initializers.push({ name, shape, type, data });
    return { name, shape, type, needsGradient: false };
  }
  /** Equal small constants share one tensor. */
  constant(data: OnnxTensor['data'], shape: readonly number[], type: OnnxType): Value {
    if (data.length !== sizeOf(shape))
      throw new Error(`A constant of shape [${shape}] has ${sizeOf(shape)} values, got ${data.length}`);
    const key = data.length <= 64 ? `${type}[${shape}]${Array.from(data, String)}` : '';
    const known = this.#constants.get(key);
    if (known) return known;
    const value = this.initializer(this.#fresh(), shape, type, data);
    if (key !== '') this.#constants.set(key, value);
    return value;
  }
  float(value: number): Value {
    return this.constant(Float32Array.of(value), [], 'float32');
  }
  int64(values: readonly number[], shape: readonly number[] = [values.length]): Value {
    return this.constant(BigInt64Array.from(values, BigInt), shape, 'int64');
  }
  zeros(shape: readonly number[], type: 'float32' | 'int32' = 'float32'): Value {
    const key = `zeros ${type} ${shape}`;
    let value = this.#constants.get(key);
    if (!value) {
      const data = type === 'float32' ? new Float32Array(sizeOf(shape)) : new Int32Array(sizeOf(shape));
      value = this.initializer(this.#fresh(), shape, type, data);
      this.#constants.set(key, value);
    }
    return value;
  }
  /** Returns a value of the graph under a name. */
  output(name: string, value: Value): void {
    if (this.#computed.has(value.name) && !this.#returned.has(value.name))
      this.#returned.set(value.name, name);
    else
      this.#nodes.push({ op: 'Identity', domain: '', inputs: [value.name], outputs: [name], attributes: {} });
    this.#outputs.push({ name, shape: value.shape, type: value.type });
  }

  emit(
    op: string,
    inputs: readonly Value[],
    shape: readonly number[],
    type: OnnxType,
    attributes: Attributes = {},
    domain = '',
  ): Value {
    return this.emitMany(op, inputs, [{ shape, type }], attributes, domain)[0]!;
  }
  /**
   * A node with several results; null stands for an optional input or output that is left out, -1 in a shape for a size known
   * when it runs only.
   */
  emitMany(
    op: string,
    inputs: readonly (Value | null)[],
    results: readonly ({ shape: readonly number[]; type: OnnxType } | null)[],
    attributes: Attributes = {},
    domain = '',
  ): Value[] {
    const outputs = results.map((result) => (result ? this.#fresh() : ''));
    this.#nodes.push({ op, domain, inputs: inputs.map((v) => v?.name ?? ''), outputs, attributes });
    return results.flatMap((result, i) => {
      if (!result) return [];
      this.#computed.add(outputs[i]!);
      return [{ name: outputs[i]!, ...result, needsGradient: false }];
    });
  }

  // --- element by element
  unary(op: string, x: Value): Value {
    return this.emit(op, [x], x.shape, x.type);
  }
  binary(op: string, a: Value, b: Value): Value {
    return this.emit(op, [a, b], broadcastShape(a.shape, b.shape), a.type);
  }
  add = (a: Value, b: Value): Value => this.binary('Add', a, b);
  sub = (a: Value, b: Value): Value => this.binary('Sub', a, b);
  mul = (a: Value, b: Value): Value => this.binary('Mul', a, b);
  div = (a: Value, b: Value): Value => this.binary('Div', a, b);
  /** A comparison as 0 and 1. */
  compare(op: 'Less' | 'LessOrEqual' | 'Greater' | 'GreaterOrEqual' | 'Equal', a: Value, b: Value): Value {
    return this.cast(this.emit(op, [a, b], broadcastShape(a.shape, b.shape), 'bool'), 'float32');
  }
  cast(x: Value, type: OnnxType): Value {
    return x.type === type ? x : this.emit('Cast', [x], x.shape, type, { to: int(dataTypeOf(type)) });
  }

  // --- shapes
  reshape(x: Value, shape: readonly number[]): Value {
    if (sizeOf(shape) !== sizeOf(x.shape)) throw new Error(`Cannot reshape [${x.shape}] to [${shape}]`);
    return sameShape(x.shape, shape) ? x : this.emit('Reshape', [x, this.int64(shape)], shape, x.type);
  }
  transpose(x: Value, permutation: readonly number[]): Value {
    if (permutation.every((p, i) => p === i)) return x;
    return this.emit(
      'Transpose',
      [x],
      permutation.map((p) => x.shape[p]!),
      x.type,
      { perm: { kind: 'ints', value: permutation } },
    );
  }
  expand(x: Value, shape: readonly number[]): Value {
    return sameShape(x.shape, shape) ? x : this.emit('Expand', [x, this.int64(shape)], shape, x.type);
  }
  concat(parts: readonly Value[], axis: number): Value {
    if (parts.length === 1) return parts[0]!;
    const shape = [...parts[0]!.shape];
    shape[axis] = parts.reduce((n, part) => n + part.shape[axis]!, 0);
    return this.emit('Concat', parts, shape, parts[0]!.type, { axis: int(axis) });
  }
  slice(x: Value, begin: readonly number[], shape: readonly number[]): Value {
    if (sameShape(x.shape, shape)) return x;
    const end = begin.map((b, i) => b + shape[i]!);
    const axes = begin.map((_, i) => i);
    return this.emit('Slice', [x, this.int64(begin), this.int64(end), this.int64(axes)], shape, x.type);
  }
  /** Zeros around x, so that it lies at `begin` in a tensor of the given shape. */
  pad(x: Value, begin: readonly number[], shape: readonly number[]): Value {
    const after = shape.map((n, i) => n - begin[i]! - x.shape[i]!);
    return this.emit('Pad', [x, this.int64([...begin, ...after])], shape, x.type);
  }
  reduce(
    op: 'ReduceSum' | 'ReduceMean' | 'ReduceMax' | 'ReduceSumSquare',
    x: Value,
    axes: readonly number[],
    keep: boolean,
  ): Value {
    const at = axes.map((a) => (a + x.shape.length) % x.shape.length);
    const shape = x.shape.flatMap((d, i) => (at.includes(i) ? (keep ? [1] : []) : [d]));
    return this.emit(op, [x, this.int64(at)], shape, x.type, { keepdims: int(keep ? 1 : 0) });
  }
  /** Sums the axes along which `shape` was broadcast to x. */
  unbroadcast(x: Value, shape: readonly number[]): Value {
    if (sameShape(x.shape, shape)) return x;
    const offset = x.shape.length - shape.length;
    const axes = x.shape.flatMap((d, i) => (i < offset || (shape[i - offset] === 1 && d !== 1) ? [i] : []));
    return this.reshape(axes.length === 0 ? x : this.reduce('ReduceSum', x, axes, false), shape);
  }

  // --- products and rows
  matmul(a: Value, b: Value, transposeA: boolean, transposeB: boolean): Value {
    const m = a.shape.at(transposeA ? -1 : -2)!;
    const n = b.shape.at(transposeB ? -2 : -1)!;
    const inner = a.shape.at(transposeA ? -2 : -1)!;
    if (inner !== b.shape.at(transposeB ? -1 : -2))
      throw new Error(
        `Inner sizes of [${a.shape}]${transposeA ? "'" : ''} and [${b.shape}]${transposeB ? "'" : ''} differ`,
      );
    const shape = [...broadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2)), m, n];
    if (!transposeA && !transposeB) return this.emit('MatMul', [a, b], shape, 'float32');
    if (a.shape.length === 2 && b.shape.length === 2)
      return this.emit('Gemm', [a, b], shape, 'float32', {
        transA: int(transposeA ? 1 : 0),
        transB: int(transposeB ? 1 : 0),
      });
    if (this.#options.portable)
      return this.emit(
        'MatMul',
        [transposeA ? this.#swapLast(a) : a, transposeB ? this.#swapLast(b) : b],
        shape,
        'float32',
      );
    const flags = { transA: int(transposeA ? 1 : 0), transB: int(transposeB ? 1 : 0) };
    return this.emit('FusedMatMul', [a, b], shape, 'float32', flags, 'com.microsoft');
  }
  /** Rows of a table by ids of any shape. */
  rows(table: Value, ids: Value): Value {
    return this.emit('Gather', [table, ids], [...ids.shape, ...table.shape.slice(1)], table.type, {
      axis: int(0),
    });
  }
  /** [...ids, n] with 1 where the last index equals the id. */
  oneHot(ids: Value, n: number): Value {
    const counting = this.constant(
      Int32Array.from({ length: n }, (_, i) => i),
      [n],
      'int32',
    );
    return this.compare('Equal', this.reshape(ids, [...ids.shape, 1]), counting);
  }

  encode(): Uint8Array {
    const named = (name: string): string => this.#returned.get(name) ?? name;
    return encodeOnnx({
      nodes: this.#nodes.map((node) => ({
        ...node,
        inputs: node.inputs.map(named),
        outputs: node.outputs.map(named),
      })),
      initializers: this.#initializers,
      inputs: this.#inputs,
      outputs: this.#outputs,
    });
  }

  #swapLast(x: Value): Value {
    const permutation = x.shape.map((_, i) => i);
    permutation.push(permutation.splice(-2, 1)[0]!);
    return this.transpose(x, permutation);
  }
  #fresh(): string {
    return `v${this.#nextId++}`;
  }
}
