/** What a model costs, from its definition alone: an `Ops` that keeps shapes and counts. */
import { broadcastShape, sizeOf } from '../onnx/graph-builder.ts';
import type { DType, Initializer, Ops, Shape } from '../ops.ts';

export interface Counted {
  shape: Shape;
}
const of = (shape: Shape): Counted => ({ shape });
const kept = (x: Counted): Shape => [...x.shape.slice(0, -1), 1];

/**
 * Counts parameters and the operations of matrix products, two for a multiplication with its addition. Other operations are
 * not counted: they are a few per element.
 */
export class CountingOps implements Ops<Counted> {
  readonly parameters = new Map<string, Shape>();
  /** Floating-point operations so far. */
  flops = 0;

  get parameterCount(): number {
    return [...this.parameters.values()].reduce((n, shape) => n + sizeOf(shape), 0);
  }

  shape(x: Counted): Shape {
    return x.shape;
  }
  parameter(name: string, shape: Shape): Counted {
    this.parameters.set(name, shape);
    return of(shape);
  }
  buffer(_name: string, shape: Shape, _init: Initializer): Counted {
    return of(shape);
  }
  assign(): void {}
  input(_name: string, shape: Shape, _dtype: DType): Counted {
    return of(shape);
  }
  constant(_values: ArrayLike<number>, shape: Shape): Counted {
    return of(shape);
  }
  constantInt(_values: ArrayLike<number>, shape: Shape): Counted {
    return of(shape);
  }

  #both(a: Counted, b: Counted): Counted {
    return of(broadcastShape(a.shape, b.shape));
  }
  add = (a: Counted, b: Counted): Counted => this.#both(a, b);
  sub = (a: Counted, b: Counted): Counted => this.#both(a, b);
  mul = (a: Counted, b: Counted): Counted => this.#both(a, b);
  div = (a: Counted, b: Counted): Counted => this.#both(a, b);
  minimum = (a: Counted, b: Counted): Counted => this.#both(a, b);
  less = (a: Counted, b: Counted): Counted => this.#both(a, b);
  equal = (a: Counted, b: Counted): Counted => this.#both(a, b);
  scale = of1;
  addScalar = of1;
  exp = of1;
  rsqrt = of1;
  silu = of1;
  sigmoid = of1;
  softplus = of1;
  clip = of1;
  softmax = of1;
  logSoftmax = of1;
  rmsNorm = of1;
  layerNorm = of1;
  stopGradient = of1;
  sign = of1;
  isPresent = of1;
  clampIds = of1;
  modulo = of1;
  toInt = of1;
  cumsumExclusive = of1;

  matmul(a: Counted, b: Counted, transposeA = false, transposeB = false): Counted {
    const lead = broadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
    const m = a.shape.at(transposeA ? -1 : -2)!;
    const inner = a.shape.at(transposeA ? -2 : -1)!;
    const n = b.shape.at(transposeB ? -2 : -1)!;
    this.flops += 2 * sizeOf(lead) * m * inner * n;
    return of([...lead, m, n]);
  }
  reshape(_x: Counted, shape: Shape): Counted {
    return of(shape);
  }
  transpose(x: Counted, permutation: readonly number[]): Counted {
    return of(permutation.map((p) => x.shape[p]!));
  }
  broadcastTo(_x: Counted, shape: Shape): Counted {
    return of(shape);
  }
  concat(parts: readonly Counted[], axis: number): Counted {
    const shape = [...parts[0]!.shape];
    shape[axis] = parts.reduce((n, part) => n + part.shape[axis]!, 0);
    return of(shape);
  }
  slice(x: Counted, begin: readonly number[], sizes: readonly number[]): Counted {
    return of(sizes.map((n, i) => (n === -1 ? x.shape[i]! - begin[i]! : n)));
  }
  sum(x: Counted, axes: readonly number[], keepDims = false): Counted {
    const at = axes.map((a) => (a + x.shape.length) % x.shape.length);
    return of(x.shape.flatMap((n, i) => (at.includes(i) ? (keepDims ? [1] : []) : [n])));
  }
  meanSquare(x: Counted): Counted {
    return of(kept(x));
  }
  gather(table: Counted, ids: Counted): Counted {
    return of([...ids.shape, table.shape[1]!]);
  }
  pick(_x: Counted, ids: Counted): Counted {
    return ids;
  }
  pickLogSoftmax(_x: Counted, ids: Counted): Counted {
    return ids;
  }
  permuteRows(x: Counted, from: Counted): Counted {
    return of([from.shape[0]!, x.shape[1]!]);
  }
  argmax(x: Counted): Counted {
    return of(x.shape.slice(0, -1));
  }
  topKOneHot(x: Counted, k: number): Counted[] {
    return Array.from({ length: k }, () => x);
  }
  invertSlots(_slots: Counted, size: number): Counted {
    return of([size]);
  }
}

function of1(x: Counted): Counted {
  return x;
}
