/**
 * A static ONNX graph with reverse-mode differentiation, as an `Ops`. Each differentiable operation puts its vector-Jacobian
 * product on a tape; `backward` walks the tape from the loss and emits the gradient nodes into the same graph.
 *
 * Gradients of embedding tables leave the graph as rows (`RowGradient`): onnxruntime's CPU ScatterND with reduction "add"
 * loses additions when several threads hit one row, so they are added up by a one-thread graph per table (scatter.ts).
 */

import type { DType, Initializer, Ops, ParameterOptions, Shape } from '../ops.ts';
import { type Fused, layerNorm, pickLogSoftmax, rmsNorm, type VectorJacobianProduct } from './fused.ts';
import { GraphBuilder, int, sameShape, sizeOf, type Value } from './graph-builder.ts';

export interface ParameterSpec {
  name: string;
  shape: Shape;
  init: Initializer;
  decay: boolean;
}
export interface BufferSpec {
  name: string;
  shape: Shape;
  init: Initializer;
}
export interface InputSpec {
  name: string;
  shape: Shape;
  dtype: DType;
}

/** Gradient rows [N, D] that belong to rows `ids` [N] of a table. */
export interface RowGradient {
  table: string;
  ids: Value;
  rows: Value;
}
export interface Gradients {
  dense: ReadonlyMap<string, Value>;
  rows: readonly RowGradient[];
}

export interface GraphOptions {
  /** Parameters and buffers become constants of the file; without it they are inputs. */
  weights?: ReadonlyMap<string, Float32Array>;
  /** See `BuilderOptions`. */
  portable?: boolean;
}

/** Tables up to this many rows get their gradient by a product with one-hot rows instead of row gradients. */
const ONE_HOT_ROWS = 64;

export class OnnxGraph implements Ops<Value> {
  readonly builder: GraphBuilder;
  readonly parameters = new Map<string, ParameterSpec>();
  readonly buffers = new Map<string, BufferSpec>();
  readonly inputs = new Map<string, InputSpec>();
  /** Buffer name -> its next value. */
  readonly assigned = new Map<string, Value>();
  readonly #weights: ReadonlyMap<string, Float32Array> | undefined;
  readonly #named = new Map<string, Value>();
  readonly #tape: { result: Value; inputs: readonly Value[]; vjp: VectorJacobianProduct }[] = [];
  readonly #tableReads = new Map<Value, { table: string; ids: Value }>();

  constructor({ weights, portable = false }: GraphOptions = {}) {
    this.builder = new GraphBuilder({ portable });
    this.#weights = weights;
  }

  shape(x: Value): Shape {
    return x.shape;
  }

  parameter(name: string, shape: Shape, init: Initializer, options: ParameterOptions = {}): Value {
    const value = this.#weight(name, shape);
    if (!this.parameters.has(name)) {
      value.needsGradient = true;
      this.parameters.set(name, { name, shape, init, decay: options.decay ?? true });
    }
    return value;
  }
  buffer(name: string, shape: Shape, init: Initializer): Value {
    const value = this.#weight(name, shape);
    this.buffers.set(name, { name, shape, init });
    return value;
  }
  assign(name: string, value: Value): void {
    const spec = this.buffers.get(name);
    if (!spec) throw new Error(`assign: there is no buffer ${name}`);
    if (!sameShape(spec.shape, value.shape))
      throw new Error(`assign: buffer ${name} has shape [${spec.shape}], got [${value.shape}]`);
    this.assigned.set(name, value);
  }
  input(name: string, shape: Shape, dtype: DType): Value {
    const known = this.#named.get(name);
    if (known) return known;
    const value = this.builder.input(name, shape, dtype);
    this.inputs.set(name, { name, shape, dtype });
    this.#named.set(name, value);
    return value;
  }
  constant(values: ArrayLike<number>, shape: Shape): Value {
    return this.builder.constant(Float32Array.from(values), shape, 'float32');
  }
  constantInt(values: ArrayLike<number>, shape: Shape): Value {
    return this.builder.constant(Int32Array.from(values), shape, 'int32');
  }

  add(a: Value, b: Value): Value {
    const { builder: g } = this;
    return this.#record(g.add(a, b), [a, b], (d) => [g.unbroadcast(d, a.shape), g.unbroadcast(d, b.shape)]);
  }
  sub(a: Value, b: Value): Value {
    const { builder: g } = this;
    return this.#record(g.sub(a, b), [a, b], (d) => [
      g.unbroadcast(d, a.shape),
      b.needsGradient ? g.unbroadcast(g.unary('Neg', d), b.shape) : null,
    ]);
  }
  mul(a: Value, b: Value): Value {
    const { builder: g } = this;
    return this.#record(g.mul(a, b), [a, b], (d) => [
      a.needsGradient ? g.unbroadcast(g.mul(d, b), a.shape) : null,
      b.needsGradient ? g.unbroadcast(g.mul(d, a), b.shape) : null,
    ]);
  }
  div(a: Value, b: Value): Value {
    const { builder: g } = this;
    const y = g.div(a, b);
    return this.#record(y, [a, b], (d) => [
      a.needsGradient ? g.unbroadcast(g.div(d, b), a.shape) : null,
      b.needsGradient ? g.unbroadcast(g.unary('Neg', g.div(g.mul(d, y), b)), b.shape) : null,
    ]);
  }
  minimum(a: Value, b: Value): Value {
    const { builder: g } = this;
    return this.#record(g.binary('Min', a, b), [a, b], (d) => [
      g.unbroadcast(g.mul(d, g.compare('LessOrEqual', a, b)), a.shape),
      g.unbroadcast(g.mul(d, g.compare('Greater', a, b)), b.shape),
    ]);
  }
  scale(x: Value, factor: number): Value {
    const { builder: g } = this;
    return this.#record(g.mul(x, g.float(factor)), [x], (d) => [g.mul(d, g.float(factor))]);
  }
  addScalar(x: Value, term: number): Value {
    const { builder: g } = this;
    return this.#record(g.add(x, g.float(term)), [x], (d) => [d]);
  }
  exp(x: Value): Value {
    const { builder: g } = this;
    const y = g.unary('Exp', x);
    return this.#record(y, [x], (d) => [g.mul(d, y)]);
  }
  rsqrt(x: Value): Value {
    const { builder: g } = this;
    const y = g.unary('Reciprocal', g.unary('Sqrt', x));
    return this.#record(y, [x], (d) => [g.mul(g.mul(d, g.float(-0.5)), g.mul(y, g.mul(y, y)))]);
  }
  silu(x: Value): Value {
    const { builder: g } = this;
    const gate = g.unary('Sigmoid', x);
    const y = g.mul(x, gate);
    // y' = s + y (1 - s)
    return this.#record(y, [x], (d) => [g.mul(d, g.add(gate, g.mul(y, g.sub(g.float(1), gate))))]);
  }
  sigmoid(x: Value): Value {
    const { builder: g } = this;
    const y = g.unary('Sigmoid', x);
    return this.#record(y, [x], (d) => [g.mul(d, g.mul(y, g.sub(g.float(1), y)))]);
  }
  softplus(x: Value): Value {
    const { builder: g } = this;
    return this.#record(g.unary('Softplus', x), [x], (d) => [g.mul(d, g.unary('Sigmoid', x))]);
  }
  clip(x: Value, low: number, high: number): Value {
    const { builder: g } = this;
    const [lo, hi] = [g.float(low), g.float(high)];
    return this.#record(g.emit('Clip', [x, lo, hi], x.shape, x.type), [x], (d) => [
      g.mul(d, g.mul(g.compare('GreaterOrEqual', x, lo), g.compare('LessOrEqual', x, hi))),
    ]);
  }

  matmul(a: Value, b: Value, transposeA = false, transposeB = false): Value {
    const { builder: g } = this;
    return this.#record(g.matmul(a, b, transposeA, transposeB), [a, b], (d) => {
      const toA = () => (transposeA ? g.matmul(b, d, transposeB, true) : g.matmul(d, b, false, !transposeB));
      const toB = () => (transposeB ? g.matmul(d, a, true, transposeA) : g.matmul(a, d, !transposeA, false));
      return [
        a.needsGradient ? g.unbroadcast(toA(), a.shape) : null,
        b.needsGradient ? g.unbroadcast(toB(), b.shape) : null,
      ];
    });
  }
  reshape(x: Value, shape: Shape): Value {
    const { builder: g } = this;
    if (sameShape(x.shape, shape)) return x;
    return this.#record(g.reshape(x, shape), [x], (d) => [g.reshape(d, x.shape)]);
  }
  transpose(x: Value, permutation: readonly number[]): Value {
    const { builder: g } = this;
    const inverse = permutation.map((_, i) => permutation.indexOf(i));
    const y = g.transpose(x, permutation);
    return y === x ? x : this.#record(y, [x], (d) => [g.transpose(d, inverse)]);
  }
  broadcastTo(x: Value, shape: Shape): Value {
    const { builder: g } = this;
    if (sameShape(x.shape, shape)) return x;
    return this.#record(g.expand(x, shape), [x], (d) => [g.unbroadcast(d, x.shape)]);
  }
  concat(parts: readonly Value[], axis: number): Value {
    const { builder: g } = this;
    if (parts.length === 1) return parts[0]!;
    return this.#record(g.concat(parts, axis), parts, (d) => {
      let at = 0;
      return parts.map((part) => {
        const begin = d.shape.map((_, i) => (i === axis ? at : 0));
        at += part.shape[axis]!;
        return part.needsGradient ? g.slice(d, begin, part.shape) : null;
      });
    });
  }
  slice(x: Value, begin: readonly number[], sizes: readonly number[]): Value {
    const { builder: g } = this;
    const shape = sizes.map((n, i) => (n === -1 ? x.shape[i]! - begin[i]! : n));
    const y = g.slice(x, begin, shape);
    return y === x ? x : this.#record(y, [x], (d) => [g.pad(d, begin, x.shape)]);
  }
  sum(x: Value, axes: readonly number[], keepDims = false): Value {
    const { builder: g } = this;
    const at = axes.map((a) => (a + x.shape.length) % x.shape.length);
    const kept = x.shape.map((d, i) => (at.includes(i) ? 1 : d));
    return this.#record(g.reduce('ReduceSum', x, at, keepDims), [x], (d) => [
      g.expand(g.reshape(d, kept), x.shape),
    ]);
  }
  softmax(x: Value): Value {
    const { builder: g } = this;
    const y = g.emit('Softmax', [x], x.shape, x.type, { axis: int(-1) });
    return this.#record(y, [x], (d) => {
      const dy = g.mul(d, y);
      return [g.sub(dy, g.mul(y, g.reduce('ReduceSum', dy, [-1], true)))];
    });
  }
  logSoftmax(x: Value): Value {
    const { builder: g } = this;
    const y = g.emit('LogSoftmax', [x], x.shape, x.type, { axis: int(-1) });
    return this.#record(y, [x], (d) => [
      g.sub(d, g.mul(g.unary('Exp', y), g.reduce('ReduceSum', d, [-1], true))),
    ]);
  }
  rmsNorm(x: Value, gain: Value): Value {
    return this.#recordFused(rmsNorm(this.builder, x, gain), [x, gain]);
  }
  layerNorm(x: Value, gain: Value, bias: Value): Value {
    return this.#recordFused(layerNorm(this.builder, x, gain, bias), [x, gain, bias]);
  }
  meanSquare(x: Value): Value {
    const { builder: g } = this;
    const share = g.float(1 / x.shape.at(-1)!);
    const y = g.mul(g.reduce('ReduceSumSquare', x, [-1], true), share);
    return this.#record(y, [x], (d) => [g.mul(x, g.mul(d, g.mul(share, g.float(2))))]);
  }
  gather(table: Value, ids: Value): Value {
    const { builder: g } = this;
    const y = g.rows(table, ids);
    if (!table.needsGradient) return y;
    const flatIds = (): Value => g.reshape(ids, [sizeOf(ids.shape)]);
    const flatRows = (d: Value): Value => g.reshape(d, [sizeOf(ids.shape), table.shape[1]!]);
    if (table.shape[0]! <= ONE_HOT_ROWS)
      return this.#record(y, [table], (d) => [
        g.matmul(g.oneHot(flatIds(), table.shape[0]!), flatRows(d), true, false),
      ]);
    if (!this.parameters.has(table.name))
      throw new Error(`gather: a table of ${table.shape[0]} rows must be a parameter, not a computed value`);
    this.#tableReads.set(y, { table: table.name, ids });
    return this.#record(y, [table], () => [null]);
  }
  pickLogSoftmax(x: Value, ids: Value): Value {
    return this.#recordFused(pickLogSoftmax(this.builder, x, ids), [x]);
  }
  pick(x: Value, ids: Value): Value {
    const { builder: g } = this;
    const n = x.shape[0]!;
    const column = g.reshape(ids, [n, 1]);
    const y = g.emit('GatherElements', [x, column], [n, 1], x.type, { axis: int(1) });
    return this.#record(g.reshape(y, [n]), [x], (d) => {
      // Each row receives one element, so nothing is added and nothing can race.
      const inputs = [g.zeros(x.shape), column, g.reshape(d, [n, 1])];
      return [g.emit('ScatterElements', inputs, x.shape, x.type, { axis: int(1) })];
    });
  }
  permuteRows(x: Value, from: Value, back: readonly Value[]): Value {
    const { builder: g } = this;
    const withZeroRow = (v: Value): Value => g.concat([g.zeros([1, v.shape[1]!]), v], 0);
    return this.#record(g.rows(withZeroRow(x), from), [x], (d) => {
      const padded = withZeroRow(d);
      return [back.map((ids) => g.rows(padded, ids)).reduce(g.add)];
    });
  }
  stopGradient(x: Value): Value {
    return { ...x, needsGradient: false };
  }

  sign(x: Value): Value {
    return this.builder.unary('Sign', x);
  }
  less(a: Value, b: Value): Value {
    return this.builder.compare('Less', a, b);
  }
  equal(a: Value, b: Value): Value {
    return this.builder.compare('Equal', a, b);
  }
  isPresent(ids: Value): Value {
    return this.builder.compare('GreaterOrEqual', ids, this.constantInt([0], []));
  }
  clampIds(ids: Value): Value {
    return this.builder.binary('Max', ids, this.constantInt([0], []));
  }
  modulo(ids: Value, n: number): Value {
    // fmod keeps the sign of the dividend
    const divisor = this.constantInt([n], []);
    return this.builder.emit('Mod', [ids, divisor], ids.shape, ids.type, { fmod: int(1) });
  }
  toInt(x: Value): Value {
    return this.builder.cast(x, 'int32');
  }
  argmax(x: Value): Value {
    const attributes = { axis: int(-1), keepdims: int(0), select_last_index: int(0) };
    return this.toInt(this.builder.emit('ArgMax', [x], x.shape.slice(0, -1), 'int64', attributes));
  }
  topKOneHot(x: Value, k: number): Value[] {
    const { builder: g } = this;
    const found: Value[] = [];
    let rest = x;
    const lowest = g.float(-3e38);
    for (let i = 0; i < k; i++) {
      const oneHot = g.oneHot(this.argmax(rest), x.shape.at(-1)!);
      found.push(oneHot);
      if (i + 1 < k)
        rest = g.emit(
          'Where',
          [g.emit('Cast', [oneHot], x.shape, 'bool', { to: int(9) }), lowest, rest],
          x.shape,
          x.type,
        );
    }
    return found;
  }
  cumsumExclusive(x: Value): Value {
    const axis = this.constantInt([0], []);
    return this.builder.emit('CumSum', [x, axis], x.shape, x.type, { exclusive: int(1) });
  }
  invertSlots(slots: Value, size: number): Value {
    const { builder: g } = this;
    const pairs = slots.shape[0]!;
    const counting = this.constantInt(
      Array.from({ length: pairs }, (_, i) => i + 1),
      [pairs],
    );
    // Slots above 0 are distinct; all dropped pairs meet at 0, whose content nobody reads.
    const inputs = [g.zeros([size + 1], 'int32'), slots, counting];
    const filled = g.emit('ScatterElements', inputs, [size + 1], 'int32', { axis: int(0) });
    return g.slice(filled, [1], [size]);
  }

  /** Emits the gradients of a scalar with respect to every parameter that has a part in it. */
  backward(loss: Value): Gradients {
    const { builder: g } = this;
    const gradients = new Map<string, Value>([
      [loss.name, g.constant(Float32Array.of(1), loss.shape, 'float32')],
    ]);
    const rows: RowGradient[] = [];
    for (const { result, inputs, vjp } of this.#tape.toReversed()) {
      const gradient = gradients.get(result.name);
      if (!gradient) continue;
      const read = this.#tableReads.get(result);
      if (read) {
        const n = sizeOf(read.ids.shape);
        rows.push({
          table: read.table,
          ids: g.reshape(read.ids, [n]),
          rows: g.reshape(gradient, [n, gradient.shape.at(-1)!]),
        });
        continue;
      }
      vjp(gradient).forEach((part, i) => {
        const input = inputs[i]!;
        if (!part || !input.needsGradient) return;
        const sum = gradients.get(input.name);
        gradients.set(input.name, sum ? g.add(sum, part) : part);
      });
    }
    const dense = new Map([...gradients].filter(([name]) => this.parameters.has(name)));
    for (const { table } of rows)
      if (dense.has(table))
        throw new Error(`Parameter ${table} is read as a table and as a matrix; one of the two is supported`);
    return { dense, rows };
  }

  #weight(name: string, shape: Shape): Value {
    const known = this.#named.get(name);
    if (known) {
      if (!sameShape(known.shape, shape))
        throw new Error(`${name} has shape [${known.shape}], asked for [${shape}]`);
      return known;
    }
    const data = this.#weights?.get(name);
    if (this.#weights && data?.length !== sizeOf(shape))
      throw new Error(`Weight ${name} of shape [${shape}] is missing or has another size: ${data?.length}`);
    const value = data
      ? this.builder.initializer(name, shape, 'float32', data)
      : this.builder.input(name, shape, 'float32');
    this.#named.set(name, value);
    return value;
  }

  #recordFused({ y, vjp }: Fused, inputs: readonly Value[]): Value {
    return this.#record(y, inputs, vjp);
  }
  #record(result: Value, inputs: readonly Value[], vjp: VectorJacobianProduct): Value {
    if (inputs.some((input) => input.needsGradient)) {
      result.needsGradient = true;
      this.#tape.push({ result, inputs, vjp });
    }
    return result;
  }
}
