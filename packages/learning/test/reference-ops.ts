/**
 * `Ops` on plain float64 arrays: slow, obvious, forward only. It shares no code with the ONNX graph, so that values and
 * finite differences of it check both the graph's values and its gradients.
 */
import type { DType, Initializer, Ops, Shape } from '../src/ops.ts';

export interface Array64 {
  shape: readonly number[];
  data: Float64Array;
}

const sizeOf = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);
const make = (shape: Shape, f: (i: number) => number): Array64 => ({
  shape,
  data: Float64Array.from({ length: sizeOf(shape) }, (_, i) => f(i)),
});
/** Index of each axis of element i. */
function unravel(i: number, shape: Shape): number[] {
  const at = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at[axis] = i % shape[axis]!;
    i = Math.floor(i / shape[axis]!);
  }
  return at;
}
const ravel = (at: readonly number[], shape: Shape): number =>
  at.reduce((sum, index, axis) => sum * shape[axis]! + index, 0);
/** The element of x that element `at` of a broadcast result reads. */
function read(x: Array64, at: readonly number[]): number {
  const offset = at.length - x.shape.length;
  return x.data[
    ravel(
      x.shape.map((n, i) => (n === 1 ? 0 : at[i + offset]!)),
      x.shape,
    )
  ]!;
}
function broadcast(a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) =>
    Math.max(a[a.length - rank + i] ?? 1, b[b.length - rank + i] ?? 1),
  );
}

export class ReferenceOps implements Ops<Array64> {
  readonly parameters = new Map<string, { shape: Shape; init: Initializer }>();
  readonly assigned = new Map<string, Array64>();
  readonly #weights: ReadonlyMap<string, Float64Array>;
  readonly #feeds: Readonly<Record<string, ArrayLike<number>>>;

  constructor(
    weights: ReadonlyMap<string, Float64Array>,
    feeds: Readonly<Record<string, ArrayLike<number>>>,
  ) {
    this.#weights = weights;
    this.#feeds = feeds;
  }

  shape(x: Array64): Shape {
    return x.shape;
  }
  parameter(name: string, shape: Shape, init: Initializer): Array64 {
    this.parameters.set(name, { shape, init });
    const data = this.#weights.get(name);
    if (data?.length !== sizeOf(shape)) throw new Error(`No weights for ${name}`);
    return { shape, data };
  }
  buffer(name: string, shape: Shape): Array64 {
    const data = this.#weights.get(name);
    return data ? { shape, data } : make(shape, () => 0);
  }
  assign(name: string, value: Array64): void {
    this.assigned.set(name, value);
  }
  input(name: string, shape: Shape, _dtype: DType): Array64 {
    const data = this.#feeds[name];
    if (data?.length !== sizeOf(shape)) throw new Error(`No feed for ${name}`);
    return { shape, data: Float64Array.from(data) };
  }
  constant(values: ArrayLike<number>, shape: Shape): Array64 {
    return { shape, data: Float64Array.from(values) };
  }
  constantInt(values: ArrayLike<number>, shape: Shape): Array64 {
    return { shape, data: Float64Array.from(values) };
  }

  #zip(a: Array64, b: Array64, f: (x: number, y: number) => number): Array64 {
    if (String(a.shape) === String(b.shape))
      return { shape: a.shape, data: a.data.map((x, i) => f(x, b.data[i]!)) };
    if (b.data.length === 1 && b.shape.length <= a.shape.length) return this.#map(a, (x) => f(x, b.data[0]!));
    const shape = broadcast(a.shape, b.shape);
    return make(shape, (i) => {
      const at = unravel(i, shape);
      return f(read(a, at), read(b, at));
    });
  }
  #map(x: Array64, f: (v: number) => number): Array64 {
    return { shape: x.shape, data: x.data.map(f) };
  }
  /** f over the last axis. */
  #rows(x: Array64, f: (row: Float64Array) => Float64Array): Array64 {
    const n = x.shape.at(-1)!;
    const data = new Float64Array(x.data.length);
    for (let i = 0; i < data.length; i += n) data.set(f(x.data.subarray(i, i + n)), i);
    return { shape: x.shape, data };
  }

  add(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => x + y);
  }
  sub(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => x - y);
  }
  mul(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => x * y);
  }
  div(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => x / y);
  }
  minimum(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, Math.min);
  }
  scale(x: Array64, factor: number): Array64 {
    return this.#map(x, (v) => v * factor);
  }
  addScalar(x: Array64, term: number): Array64 {
    return this.#map(x, (v) => v + term);
  }
  exp(x: Array64): Array64 {
    return this.#map(x, Math.exp);
  }
  rsqrt(x: Array64): Array64 {
    return this.#map(x, (v) => 1 / Math.sqrt(v));
  }
  silu(x: Array64): Array64 {
    return this.#map(x, (v) => v / (1 + Math.exp(-v)));
  }
  sigmoid(x: Array64): Array64 {
    return this.#map(x, (v) => 1 / (1 + Math.exp(-v)));
  }
  softplus(x: Array64): Array64 {
    return this.#map(x, (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v))));
  }
  clip(x: Array64, low: number, high: number): Array64 {
    return this.#map(x, (v) => Math.min(high, Math.max(low, v)));
  }

  matmul(a: Array64, b: Array64, transposeA = false, transposeB = false): Array64 {
    const m = a.shape.at(transposeA ? -1 : -2)!;
    const k = a.shape.at(transposeA ? -2 : -1)!;
    const n = b.shape.at(transposeB ? -2 : -1)!;
    const leading = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
    // Which matrix of a stack a leading index reads.
    const places = (x: Array64): Array64 => {
      const shape = x.shape.slice(0, -2);
      return make(shape, (i) => i);
    };
    const [placesA, placesB] = [places(a), places(b)];
    const data = new Float64Array(sizeOf(leading) * m * n);
    for (let s = 0; s < sizeOf(leading); s++) {
      const at = unravel(s, leading);
      const matrixA = read(placesA, at) * m * k;
      const matrixB = read(placesB, at) * k * n;
      for (let row = 0; row < m; row++)
        for (let column = 0; column < n; column++) {
          let sum = 0;
          for (let inner = 0; inner < k; inner++)
            sum +=
              a.data[matrixA + (transposeA ? inner * m + row : row * k + inner)]! *
              b.data[matrixB + (transposeB ? column * k + inner : inner * n + column)]!;
          data[(s * m + row) * n + column] = sum;
        }
    }
    return { shape: [...leading, m, n], data };
  }
  reshape(x: Array64, shape: Shape): Array64 {
    return { shape, data: x.data };
  }
  transpose(x: Array64, permutation: readonly number[]): Array64 {
    const shape = permutation.map((p) => x.shape[p]!);
    return make(shape, (i) => {
      const at = unravel(i, shape);
      const from = new Array<number>(at.length);
      permutation.forEach((p, axis) => {
        from[p] = at[axis]!;
      });
      return x.data[ravel(from, x.shape)]!;
    });
  }
  broadcastTo(x: Array64, shape: Shape): Array64 {
    return make(shape, (i) => read(x, unravel(i, shape)));
  }
  concat(parts: readonly Array64[], axis: number): Array64 {
    const shape = [...parts[0]!.shape];
    shape[axis] = parts.reduce((n, p) => n + p.shape[axis]!, 0);
    return make(shape, (i) => {
      const at = unravel(i, shape);
      for (const part of parts) {
        if (at[axis]! < part.shape[axis]!) return part.data[ravel(at, part.shape)]!;
        at[axis]! -= part.shape[axis]!;
      }
      throw new Error('unreachable');
    });
  }
  slice(x: Array64, begin: readonly number[], sizes: readonly number[]): Array64 {
    const shape = sizes.map((n, i) => (n === -1 ? x.shape[i]! - begin[i]! : n));
    return make(shape, (i) => {
      const at = unravel(i, shape).map((index, axis) => index + begin[axis]!);
      return x.data[ravel(at, x.shape)]!;
    });
  }
  sum(x: Array64, axes: readonly number[], keepDims = false): Array64 {
    const at = axes.map((a) => (a + x.shape.length) % x.shape.length);
    const kept = x.shape.map((n, i) => (at.includes(i) ? 1 : n));
    const data = new Float64Array(sizeOf(kept));
    x.data.forEach((v, i) => {
      const index = unravel(i, x.shape).map((k, axis) => (at.includes(axis) ? 0 : k));
      data[ravel(index, kept)]! += v;
    });
    return { shape: keepDims ? kept : x.shape.filter((_, i) => !at.includes(i)), data };
  }
  softmax(x: Array64): Array64 {
    return this.exp(this.logSoftmax(x));
  }
  logSoftmax(x: Array64): Array64 {
    return this.#rows(x, (row) => {
      const max = row.reduce((a, b) => Math.max(a, b));
      const log = max + Math.log(row.reduce((sum, v) => sum + Math.exp(v - max), 0));
      return row.map((v) => v - log);
    });
  }
  rmsNorm(x: Array64, gain: Array64): Array64 {
    return this.#rows(x, (row) => {
      const root = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / row.length + 1e-6);
      return row.map((v, i) => (v / root) * gain.data[i]!);
    });
  }
  layerNorm(x: Array64, gain: Array64, bias: Array64): Array64 {
    return this.#rows(x, (row) => {
      const mean = row.reduce((sum, v) => sum + v, 0) / row.length;
      const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length;
      return row.map((v, i) => ((v - mean) / Math.sqrt(variance + 1e-5)) * gain.data[i]! + bias.data[i]!);
    });
  }
  meanSquare(x: Array64): Array64 {
    const n = x.shape.at(-1)!;
    return make([...x.shape.slice(0, -1), 1], (i) => {
      const row = x.data.subarray(i * n, (i + 1) * n);
      return row.reduce((sum, v) => sum + v * v, 0) / n;
    });
  }
  pickLogSoftmax(x: Array64, ids: Array64): Array64 {
    return this.pick(this.logSoftmax(x), ids);
  }
  gather(table: Array64, ids: Array64): Array64 {
    const dim = table.shape[1]!;
    return make([...ids.shape, dim], (i) => table.data[ids.data[Math.floor(i / dim)]! * dim + (i % dim)]!);
  }
  pick(x: Array64, ids: Array64): Array64 {
    return make(ids.shape, (i) => x.data[i * x.shape[1]! + ids.data[i]!]!);
  }
  permuteRows(x: Array64, from: Array64, _back: readonly Array64[]): Array64 {
    const dim = x.shape[1]!;
    return make([from.shape[0]!, dim], (i) => {
      const row = from.data[Math.floor(i / dim)]!;
      return row === 0 ? 0 : x.data[(row - 1) * dim + (i % dim)]!;
    });
  }
  stopGradient(x: Array64): Array64 {
    return x;
  }

  sign(x: Array64): Array64 {
    return this.#map(x, Math.sign);
  }
  less(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => (x < y ? 1 : 0));
  }
  equal(a: Array64, b: Array64): Array64 {
    return this.#zip(a, b, (x, y) => (x === y ? 1 : 0));
  }
  isPresent(ids: Array64): Array64 {
    return this.#map(ids, (id) => (id >= 0 ? 1 : 0));
  }
  clampIds(ids: Array64): Array64 {
    return this.#map(ids, (id) => Math.max(id, 0));
  }
  modulo(ids: Array64, n: number): Array64 {
    return this.#map(ids, (id) => id % n);
  }
  toInt(x: Array64): Array64 {
    return this.#map(x, Math.trunc);
  }
  argmax(x: Array64): Array64 {
    const n = x.shape.at(-1)!;
    return make(x.shape.slice(0, -1), (i) => {
      const row = x.data.subarray(i * n, (i + 1) * n);
      return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
    });
  }
  topKOneHot(x: Array64, k: number): Array64[] {
    const [rows, n] = x.shape as [number, number];
    const order = Array.from({ length: rows }, (_, r) =>
      Array.from({ length: n }, (_, i) => i).sort((a, b) => x.data[r * n + b]! - x.data[r * n + a]! || a - b),
    );
    return Array.from({ length: k }, (_, place) =>
      make(x.shape, (i) => (order[Math.floor(i / n)]![place] === i % n ? 1 : 0)),
    );
  }
  cumsumExclusive(x: Array64): Array64 {
    const row = sizeOf(x.shape.slice(1));
    return make(x.shape, (i) => {
      let sum = 0;
      for (let j = i - row; j >= 0; j -= row) sum += x.data[j]!;
      return sum;
    });
  }
  invertSlots(slots: Array64, size: number): Array64 {
    const at = Array.from(slots.data);
    return make([size], (slot) => at.indexOf(slot + 1) + 1);
  }
}
