/** A computation for every operation of `Ops`: what each engine's gradients and values are checked on. */
import { normal, type Ops } from '../src/ops.ts';
import type { Model } from './gradients.ts';

const a = <T>(ops: Ops<T>, shape: readonly number[]): T => ops.parameter('a', shape, normal(1));
const b = <T>(ops: Ops<T>, shape: readonly number[]): T => ops.parameter('b', shape, normal(1));
/** Sum of squares with uneven weights, so that every element's gradient differs. */
function toLoss<T>(ops: Ops<T>, y: T): T {
  const size = ops.shape(y).reduce((m, n) => m * n, 1);
  const flat = ops.reshape(y, [size]);
  const uneven = ops.constant(
    Array.from({ length: size }, (_, i) => 0.5 + ((i * 7) % 11) / 11),
    [size],
  );
  return ops.sum(ops.mul(ops.mul(flat, flat), uneven), [0]);
}

/** With gradients. */
export const differentiable: Record<string, { model: Model; positive?: boolean }> = {
  'add with broadcasting': { model: (o) => toLoss(o, o.add(a(o, [3, 4]), b(o, [4]))) },
  'sub with broadcasting': { model: (o) => toLoss(o, o.sub(a(o, [3, 1]), b(o, [2, 3, 4]))) },
  'mul with broadcasting': { model: (o) => toLoss(o, o.mul(a(o, [2, 1, 4]), b(o, [3, 1]))) },
  'mul of a value with itself': { model: (o) => toLoss(o, o.mul(a(o, [5]), a(o, [5]))) },
  div: { model: (o) => toLoss(o, o.div(a(o, [3, 4]), b(o, [3, 1]))), positive: true },
  minimum: { model: (o) => toLoss(o, o.minimum(a(o, [3, 4]), b(o, [4]))) },
  scale: { model: (o) => toLoss(o, o.scale(a(o, [5]), -1.7)) },
  addScalar: { model: (o) => toLoss(o, o.addScalar(a(o, [5]), 0.3)) },
  exp: { model: (o) => toLoss(o, o.exp(a(o, [5]))) },
  rsqrt: { model: (o) => toLoss(o, o.rsqrt(a(o, [5]))), positive: true },
  silu: { model: (o) => toLoss(o, o.silu(a(o, [9]))) },
  sigmoid: { model: (o) => toLoss(o, o.sigmoid(a(o, [9]))) },
  softplus: { model: (o) => toLoss(o, o.softplus(o.scale(a(o, [9]), 30))) },
  clip: { model: (o) => toLoss(o, o.clip(a(o, [40]), -0.5, 0.4)) },
  'matmul of matrices': { model: (o) => toLoss(o, o.matmul(a(o, [3, 4]), b(o, [4, 2]))) },
  "matmul A' B": { model: (o) => toLoss(o, o.matmul(a(o, [4, 3]), b(o, [4, 2]), true)) },
  "matmul A B'": { model: (o) => toLoss(o, o.matmul(a(o, [3, 4]), b(o, [2, 4]), false, true)) },
  "matmul A' B'": { model: (o) => toLoss(o, o.matmul(a(o, [4, 3]), b(o, [2, 4]), true, true)) },
  'matmul of stacks': { model: (o) => toLoss(o, o.matmul(a(o, [2, 3, 4]), b(o, [2, 4, 2]))) },
  'matmul of stacks, transposed': {
    model: (o) => toLoss(o, o.matmul(a(o, [2, 2, 4, 3]), b(o, [2, 2, 5, 4]), true, true)),
  },
  'matmul with a broadcast stack': { model: (o) => toLoss(o, o.matmul(a(o, [1, 3, 4]), b(o, [2, 4, 2]))) },
  'reshape and transpose': {
    model: (o) => toLoss(o, o.transpose(o.reshape(a(o, [4, 6]), [2, 2, 3, 2]), [2, 0, 3, 1])),
  },
  broadcastTo: { model: (o) => toLoss(o, o.broadcastTo(a(o, [1, 3]), [2, 4, 3])) },
  concat: { model: (o) => toLoss(o, o.concat([a(o, [2, 3]), b(o, [2, 1]), a(o, [2, 3])], 1)) },
  slice: { model: (o) => toLoss(o, o.slice(a(o, [3, 5]), [1, 2], [2, -1])) },
  'sum over axes': { model: (o) => toLoss(o, o.sum(a(o, [2, 3, 4]), [0, -1])) },
  'sum that keeps axes': { model: (o) => toLoss(o, o.sum(a(o, [2, 3, 4]), [1], true)) },
  softmax: { model: (o) => toLoss(o, o.softmax(a(o, [3, 5]))) },
  logSoftmax: { model: (o) => toLoss(o, o.logSoftmax(a(o, [3, 5]))) },
  rmsNorm: { model: (o) => toLoss(o, o.rmsNorm(a(o, [2, 3, 5]), b(o, [5]))) },
  layerNorm: {
    model: (o) => toLoss(o, o.layerNorm(a(o, [2, 3, 5]), b(o, [5]), o.parameter('c', [5], normal(1)))),
  },
  'layerNorm of a value far from 0': {
    model: (o) =>
      toLoss(o, o.layerNorm(o.addScalar(a(o, [4, 8]), 3), b(o, [8]), o.parameter('c', [8], normal(1)))),
  },
  meanSquare: { model: (o) => toLoss(o, o.meanSquare(a(o, [2, 3, 5]))) },
  pickLogSoftmax: { model: (o) => toLoss(o, o.pickLogSoftmax(a(o, [3, 5]), o.constantInt([4, 0, 2], [3]))) },
  'gather from a small table': {
    model: (o) => toLoss(o, o.gather(a(o, [4, 3]), o.constantInt([3, 0, 3, 1, 3, 0], [2, 3]))),
  },
  'gather from a large table, twice': {
    model: (o) => {
      const once = o.gather(a(o, [80, 3]), o.constantInt([3, 0, 79, 3], [4]));
      return toLoss(o, o.mul(once, o.gather(a(o, [80, 3]), o.constantInt([3, 3, 5, 0], [4]))));
    },
  },
  pick: { model: (o) => toLoss(o, o.pick(a(o, [3, 5]), o.constantInt([4, 0, 2], [3]))) },
  permuteRows: {
    model: (o) =>
      // row 1 goes to places 2 and 4, row 3 to place 1, row 2 nowhere
      toLoss(
        o,
        o.permuteRows(a(o, [3, 2]), o.constantInt([3, 1, 0, 1], [4]), [
          o.constantInt([2, 0, 1], [3]),
          o.constantInt([4, 0, 0], [3]),
        ]),
      ),
  },
  stopGradient: {
    model: (o) => toLoss(o, o.add(b(o, [4]), o.scale(o.stopGradient(o.constant([1, 2, 3, 4], [4])), 2))),
  },
};

/** Without gradients; integers and whole numbers, so that engines agree to the last digit. Inputs x [3, 4] and ids [6]. */
export const exact = {
  x: Float32Array.from([0.5, -2, 3, 3, 0, 3, -1, 0.25, 7, 0, 0, 0]),
  ids: Int32Array.from([-1, 5, 0, -7, 12, 3]),
  build<T>(o: Ops<T>): Record<string, T> {
    const values = o.input('x', [3, 4], 'float32');
    const integers = o.input('ids', [6], 'int32');
    const [first, second] = o.topKOneHot(values, 2) as [T, T];
    return {
      sign: o.sign(values),
      less: o.less(values, o.constant([1], [])),
      equal: o.equal(o.reshape(integers, [6, 1]), o.reshape(integers, [1, 6])),
      isPresent: o.isPresent(integers),
      clampIds: o.clampIds(integers),
      modulo: o.modulo(integers, 5),
      toInt: o.toInt(o.constant([0, 2, 7], [3])),
      argmax: o.argmax(values),
      first,
      second,
      cumsum: o.cumsumExclusive(values),
      slots: o.invertSlots(o.constantInt([2, 0, 5, 1, 0], [5]), 6),
    };
  },
};
