/**
 * `Ops` on TensorFlow.js tensors: every call computes at once, and TensorFlow.js records what it needs for gradients. Works on
 * any of its backends (tensorflow, wasm, cpu). Where a backend lacks a kernel, or its own gradient is wrong for broadcast
 * stacks or repeated rows, the gradient is given here.
 */
import type * as tfjs from '@tensorflow/tfjs';
import type { DType, Initializer, Ops, ParameterOptions, Shape } from '../ops.ts';

export type Tensorflow = typeof tfjs;
type Tensor = tfjs.Tensor;

const RMS_EPSILON = 1e-6;
const LAYER_EPSILON = 1e-5;

/** Where a pass takes its tensors from and leaves what it assigns. */
export interface TensorSource {
  parameter(name: string, shape: Shape, init: Initializer, options: ParameterOptions): Tensor;
  buffer(name: string, shape: Shape, init: Initializer): Tensor;
  assign(name: string, value: Tensor): void;
  input(name: string, shape: Shape, dtype: DType): Tensor;
}

export class TensorflowOps implements Ops<Tensor> {
  readonly #tf: Tensorflow;
  readonly #source: TensorSource;

  constructor(tf: Tensorflow, source: TensorSource) {
    this.#tf = tf;
    this.#source = source;
  }

  shape(x: Tensor): Shape {
    return x.shape;
  }
  parameter(name: string, shape: Shape, init: Initializer, options: ParameterOptions = {}): Tensor {
    return this.#source.parameter(name, shape, init, options);
  }
  buffer(name: string, shape: Shape, init: Initializer): Tensor {
    return this.#source.buffer(name, shape, init);
  }
  assign(name: string, value: Tensor): void {
    this.#source.assign(name, value);
  }
  input(name: string, shape: Shape, dtype: DType): Tensor {
    return this.#source.input(name, shape, dtype);
  }
  constant(values: ArrayLike<number>, shape: Shape): Tensor {
    return this.#tf.tensor(Float32Array.from(values), [...shape], 'float32');
  }
  constantInt(values: ArrayLike<number>, shape: Shape): Tensor {
    return this.#tf.tensor(Int32Array.from(values), [...shape], 'int32');
  }

  add(a: Tensor, b: Tensor): Tensor {
    return this.#tf.add(a, b);
  }
  sub(a: Tensor, b: Tensor): Tensor {
    return this.#tf.sub(a, b);
  }
  mul(a: Tensor, b: Tensor): Tensor {
    return this.#tf.mul(a, b);
  }
  div(a: Tensor, b: Tensor): Tensor {
    return this.#tf.div(a, b);
  }
  minimum(a: Tensor, b: Tensor): Tensor {
    const tf = this.#tf;
    const fromA = this.#constantOf(() => tf.cast(tf.lessEqual(a, b), 'float32'));
    return tf.add(tf.mul(a, fromA), tf.mul(b, tf.sub(1, fromA)));
  }
  scale(x: Tensor, factor: number): Tensor {
    return this.#tf.mul(x, factor);
  }
  addScalar(x: Tensor, term: number): Tensor {
    return this.#tf.add(x, term);
  }
  exp(x: Tensor): Tensor {
    return this.#tf.exp(x);
  }
  rsqrt(x: Tensor): Tensor {
    return this.#tf.rsqrt(x);
  }
  silu(x: Tensor): Tensor {
    return this.#tf.mul(x, this.#tf.sigmoid(x));
  }
  sigmoid(x: Tensor): Tensor {
    return this.#tf.sigmoid(x);
  }
  softplus(x: Tensor): Tensor {
    const tf = this.#tf;
    return tf.customGrad((...args) => {
      const [v, save] = args as [Tensor, tfjs.GradSaveFunc];
      save([v]);
      return {
        value: tf.add(tf.relu(v), tf.log1p(tf.exp(tf.neg(tf.abs(v))))),
        gradFunc: (d: Tensor, saved: Tensor[]) => tf.mul(d, tf.sigmoid(saved[0]!)),
      };
    })(x);
  }
  clip(x: Tensor, low: number, high: number): Tensor {
    return this.#tf.clipByValue(x, low, high);
  }

  matmul(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
    const tf = this.#tf;
    const lead = (x: Tensor): number[] => x.shape.slice(0, -2);
    const [leadA, leadB] = [lead(a), lead(b)];
    if (String(leadA) === String(leadB)) return tf.matMul(a, b, transposeA, transposeB);
    const both = tf.broadcast_util.assertAndGetBroadcastShape(leadA, leadB);
    const spread = (x: Tensor): Tensor => this.broadcastTo(x, [...both, ...x.shape.slice(-2)]);
    return tf.matMul(spread(a), spread(b), transposeA, transposeB);
  }
  reshape(x: Tensor, shape: Shape): Tensor {
    return this.#tf.reshape(x, [...shape]);
  }
  transpose(x: Tensor, permutation: readonly number[]): Tensor {
    return this.#tf.transpose(x, [...permutation]);
  }
  broadcastTo(x: Tensor, shape: Shape): Tensor {
    const tf = this.#tf;
    const aligned = tf.reshape(x, [...Array<number>(shape.length - x.shape.length).fill(1), ...x.shape]);
    const repeats = shape.map((n, i) => n / aligned.shape[i]!);
    return repeats.every((n) => n === 1) ? aligned : tf.tile(aligned, repeats);
  }
  concat(parts: readonly Tensor[], axis: number): Tensor {
    return parts.length === 1 ? parts[0]! : this.#tf.concat([...parts], axis);
  }
  slice(x: Tensor, begin: readonly number[], sizes: readonly number[]): Tensor {
    return this.#tf.slice(x, [...begin], [...sizes]);
  }
  sum(x: Tensor, axes: readonly number[], keepDims = false): Tensor {
    return this.#tf.sum(x, [...axes], keepDims);
  }
  softmax(x: Tensor): Tensor {
    return this.#tf.softmax(x);
  }
  logSoftmax(x: Tensor): Tensor {
    return this.#tf.logSoftmax(x);
  }
  rmsNorm(x: Tensor, gain: Tensor): Tensor {
    const tf = this.#tf;
    return tf.mul(tf.mul(x, tf.rsqrt(tf.add(this.meanSquare(x), RMS_EPSILON))), gain);
  }
  layerNorm(x: Tensor, gain: Tensor, bias: Tensor): Tensor {
    const tf = this.#tf;
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const inverse = tf.rsqrt(tf.add(this.meanSquare(centred), LAYER_EPSILON));
    return tf.add(tf.mul(tf.mul(centred, inverse), gain), bias);
  }
  meanSquare(x: Tensor): Tensor {
    return this.#tf.mean(this.#tf.mul(x, x), -1, true);
  }
  gather(table: Tensor, ids: Tensor): Tensor {
    const tf = this.#tf;
    const [rows, dim] = table.shape as [number, number];
    const flat = tf.reshape(ids, [ids.size]);
    const y = tf.customGrad((...args) => {
      const [v, save] = args as [Tensor, tfjs.GradSaveFunc];
      save([flat]);
      return {
        value: tf.gather(v, flat as tfjs.Tensor1D),
        // Adds up where several rows go to one place.
        gradFunc: (d: Tensor, saved: Tensor[]) =>
          tf.scatterND(tf.reshape(saved[0]!, [ids.size, 1]), d, [rows, dim]),
      };
    })(table);
    return tf.reshape(y, [...ids.shape, dim]);
  }
  pick(x: Tensor, ids: Tensor): Tensor {
    const oneHot = this.#oneHot(ids, x.shape[1]!);
    return this.#tf.sum(this.#tf.mul(x, oneHot), 1);
  }
  pickLogSoftmax(x: Tensor, ids: Tensor): Tensor {
    return this.pick(this.logSoftmax(x), ids);
  }
  permuteRows(x: Tensor, from: Tensor, back: readonly Tensor[]): Tensor {
    const tf = this.#tf;
    const withZeroRow = (v: Tensor): Tensor => tf.concat([tf.zeros([1, v.shape[1]!]), v], 0);
    return tf.customGrad((...args) => {
      const [v, save] = args as [Tensor, tfjs.GradSaveFunc];
      save([...back]);
      return {
        value: tf.gather(withZeroRow(v), from as tfjs.Tensor1D),
        gradFunc: (d: Tensor, saved: Tensor[]) => {
          const padded = withZeroRow(d);
          return saved.map((ids) => tf.gather(padded, ids as tfjs.Tensor1D)).reduce((x, y) => tf.add(x, y));
        },
      };
    })(x);
  }
  stopGradient(x: Tensor): Tensor {
    return this.#constantOf(() => this.#tf.clone(x));
  }

  sign(x: Tensor): Tensor {
    return this.#constantOf(() => this.#tf.sign(x));
  }
  less(a: Tensor, b: Tensor): Tensor {
    return this.#constantOf(() => this.#tf.cast(this.#tf.less(a, b), 'float32'));
  }
  equal(a: Tensor, b: Tensor): Tensor {
    return this.#constantOf(() => this.#tf.cast(this.#tf.equal(a, b), 'float32'));
  }
  isPresent(ids: Tensor): Tensor {
    return this.#tf.cast(this.#tf.greaterEqual(ids, this.#tf.scalar(0, 'int32')), 'float32');
  }
  clampIds(ids: Tensor): Tensor {
    return this.#tf.maximum(ids, this.#tf.scalar(0, 'int32'));
  }
  modulo(ids: Tensor, n: number): Tensor {
    // Backends disagree about negative numbers, and some divide as floats.
    return this.#tf.tensor(
      (ids.dataSync() as Int32Array).map((id) => id % n),
      ids.shape,
      'int32',
    );
  }
  toInt(x: Tensor): Tensor {
    return this.#tf.cast(x, 'int32');
  }
  argmax(x: Tensor): Tensor {
    return this.#tf.argMax(x, -1);
  }
  topKOneHot(x: Tensor, k: number): Tensor[] {
    const tf = this.#tf;
    const found: Tensor[] = [];
    let rest = x;
    for (let i = 0; i < k; i++) {
      const oneHot = this.#oneHot(tf.argMax(rest, -1), x.shape.at(-1)!);
      found.push(oneHot);
      if (i + 1 < k) rest = tf.where(tf.greater(oneHot, 0), tf.fill(x.shape, -3e38), rest);
    }
    return found;
  }
  cumsumExclusive(x: Tensor): Tensor {
    return this.#tf.cumsum(x, 0, true);
  }
  invertSlots(slots: Tensor, size: number): Tensor {
    const pairOfSlot = new Int32Array(size + 1);
    (slots.dataSync() as Int32Array).forEach((slot, pair) => {
      pairOfSlot[slot] = pair + 1;
    });
    return this.#tf.tensor(pairOfSlot.subarray(1), [size], 'int32');
  }

  /** As integers first: the wasm backend writes floats wrongly. */
  #oneHot(ids: Tensor, n: number): Tensor {
    return this.#constantOf(() => this.#tf.cast(this.#tf.oneHot(ids as tfjs.Tensor1D, n), 'float32'));
  }
  /** A value through which no gradient flows, whatever it is computed from. */
  #constantOf(compute: () => Tensor): Tensor {
    const tf = this.#tf;
    // Inside customGrad nothing is recorded; without inputs it has no gradient.
    return tf.customGrad(() => ({ value: compute(), gradFunc: () => [] as Tensor[] }))();
  }
}
