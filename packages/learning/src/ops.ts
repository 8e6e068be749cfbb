/**
 * What a model may compute, without saying by whom. A model is written once as a function of `Ops<T>`; an engine decides what
 * a T is: a value of a static ONNX graph (onnx/graph.ts), or an array (the float64 reference of the tests).
 *
 * Shapes are static. Float values are float32 unless the engine says otherwise; integers are int32. Binary operations broadcast
 * as in numpy. Reductions and softmax take axes as non-negative numbers or from the end as negative ones.
 */

export type DType = 'float32' | 'int32';
export type Shape = readonly number[];

/** How a parameter starts. */
export type Initializer = { kind: 'zeros' } | { kind: 'ones' } | { kind: 'normal'; std: number };
export const zeros: Initializer = { kind: 'zeros' };
export const ones: Initializer = { kind: 'ones' };
export const normal = (std: number): Initializer => ({ kind: 'normal', std });

export interface ParameterOptions {
  /** Whether weight decay applies; default true. */
  decay?: boolean;
}

export interface Ops<T> {
  shape(x: T): Shape;

  // --- where values come from
  /** A trained tensor; the same name gives the same tensor. */
  parameter(name: string, shape: Shape, init: Initializer, options?: ParameterOptions): T;
  /** Kept between steps but not trained by gradients; see `assign`. */
  buffer(name: string, shape: Shape, init: Initializer): T;
  /** The value that a buffer has from the next step on. */
  assign(name: string, value: T): void;
  /** Fed on every step. */
  input(name: string, shape: Shape, dtype: DType): T;
  constant(values: ArrayLike<number>, shape: Shape): T;
  constantInt(values: ArrayLike<number>, shape: Shape): T;

  // --- differentiable, element by element
  add(a: T, b: T): T;
  sub(a: T, b: T): T;
  mul(a: T, b: T): T;
  div(a: T, b: T): T;
  /** At equality the gradient goes to a. */
  minimum(a: T, b: T): T;
  scale(x: T, factor: number): T;
  addScalar(x: T, term: number): T;
  exp(x: T): T;
  /** 1 / sqrt(x), x > 0. */
  rsqrt(x: T): T;
  silu(x: T): T;
  sigmoid(x: T): T;
  /** log(1 + exp(x)), stable; its derivative is the sigmoid. */
  softplus(x: T): T;
  /** The gradient is 0 outside [low, high] and 1 on its bounds. */
  clip(x: T, low: number, high: number): T;

  // --- differentiable, over shapes
  /** [.., m, k] x [.., k, n] with leading axes broadcast; the flags swap the last two axes first. */
  matmul(a: T, b: T, transposeA?: boolean, transposeB?: boolean): T;
  reshape(x: T, shape: Shape): T;
  transpose(x: T, permutation: readonly number[]): T;
  broadcastTo(x: T, shape: Shape): T;
  concat(parts: readonly T[], axis: number): T;
  /** Part of x from `begin`, with the given sizes; size -1 is up to the end. */
  slice(x: T, begin: readonly number[], sizes: readonly number[]): T;
  sum(x: T, axes: readonly number[], keepDims?: boolean): T;
  /** Over the last axis. */
  softmax(x: T): T;
  logSoftmax(x: T): T;
  /** x / sqrt(mean(x^2) + 1e-6) * gain over the last axis (Zhang and Sennrich 2019). */
  rmsNorm(x: T, gain: T): T;
  /** (x - mean) / sqrt(variance + 1e-5) * gain + bias over the last axis (Ba, Kiros and Hinton 2016). */
  layerNorm(x: T, gain: T, bias: T): T;
  /** mean(x^2) over the last axis, which is kept with size 1. */
  meanSquare(x: T): T;
  /** Rows of a table [V, D] by ids of any shape: [...ids, D]. ids must be in [0, V). */
  gather(table: T, ids: T): T;
  /** One column per row: x [N, V], ids [N] gives [N]. */
  pick(x: T, ids: T): T;
  /** One column per row of logSoftmax(x): x [N, V], ids [N] gives [N]. */
  pickLogSoftmax(x: T, ids: T): T;
  /**
   * Rows of x [N, D] where `from` [M] names them counting from 1, and a row of zeros where it says 0. `back` holds the inverse:
   * lists [N] that name, for each row of x, rows of the result (from 1; 0 for none), so that the gradient is a gather too.
   */
  permuteRows(x: T, from: T, back: readonly T[]): T;
  stopGradient(x: T): T;

  // --- not differentiable
  /** -1, 0 or 1. */
  sign(x: T): T;
  /** 1 where a < b, else 0, as floats. */
  less(a: T, b: T): T;
  /** 1 where equal, else 0, as floats; a and b are integers. */
  equal(a: T, b: T): T;
  /** 1 where the integer is 0 or more, else 0, as floats. */
  isPresent(ids: T): T;
  /** max(id, 0). */
  clampIds(ids: T): T;
  /** Remainder of non-negative integers; negative ones stay negative. */
  modulo(ids: T, n: number): T;
  /** Whole numbers held as floats to integers. */
  toInt(x: T): T;
  /** Index of the greatest value over the last axis, the lowest index where several are equal. */
  argmax(x: T): T;
  /** The k greatest of each row of x [N, E], greatest first, each as one-hot rows [N, E]; ties go to the lower index. */
  topKOneHot(x: T, k: number): T[];
  /** y[i] = x[0] + ... + x[i - 1] over axis 0. */
  cumsumExclusive(x: T): T;
  /** slots [P] of distinct numbers from 1 to size, or 0: gives [size], the pair (from 1) at each slot, 0 where empty. */
  invertSlots(slots: T, size: number): T;
}
