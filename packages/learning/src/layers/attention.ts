import { normal, type Ops, type Shape } from '../ops.ts';

export const lastOf = (shape: Shape): number => shape.at(-1)!;

/** x [.., in] x W [in, out]; W may have a leading axis that x has too. Initial values N(0, 1/in), times `gain`. */
export function linear<T>(ops: Ops<T>, name: string, x: T, outDim: number, gain = 1): T {
  const shape = ops.shape(x);
  const inDim = lastOf(shape);
  const stacked = shape.length === 3 ? [shape[0]!] : [];
  const weight = ops.parameter(name, [...stacked, inDim, outDim], normal(gain / Math.sqrt(inDim)));
  return ops.matmul(x, weight);
}

/** RMS norm with a learned gain. */
export function norm<T>(ops: Ops<T>, name: string, x: T): T {
  const gain = ops.parameter(name, [lastOf(ops.shape(x))], { kind: 'ones' }, { decay: false });
  return ops.rmsNorm(x, gain);
}

/**
 * softmax(q k' / sqrt(d) + mask) v with several heads (Vaswani et al. 2017).
 * @param q [N, Tq, D] @param k [N, Tk, D] @param v [N, Tk, D], already projected
 * @param options.allowed 1 where a query may look, 0 elsewhere; broadcast to [N, heads, Tq, Tk]. A query that may look nowhere gets zeros.
 * @param options.mask added to the scores instead, where every query may look somewhere
 * @returns [N, Tq, D]
 */
export function attend<T>(
  ops: Ops<T>,
  q: T,
  k: T,
  v: T,
  options: { heads: number; allowed?: T; mask?: T },
): T {
  const { heads, allowed } = options;
  const mask = options.mask ?? (allowed === undefined ? undefined : forbid(ops, allowed));
  const [n, queries, dim] = ops.shape(q) as [number, number, number];
  const split = (x: T): T =>
    ops.transpose(ops.reshape(x, [n, ops.shape(x)[1]!, heads, dim / heads]), [0, 2, 1, 3]);
  let scores = ops.scale(ops.matmul(split(q), split(k), false, true), 1 / Math.sqrt(dim / heads));
  if (mask !== undefined) scores = ops.add(scores, mask);
  let weights = ops.softmax(scores);
  if (allowed !== undefined) weights = ops.mul(weights, allowed);
  return ops.reshape(ops.transpose(ops.matmul(weights, split(v)), [0, 2, 1, 3]), [n, queries, dim]);
}

/** 0 where allowed is 1, -1e9 where it is 0: added to logits, it takes a choice out of a softmax. */
export function forbid<T>(ops: Ops<T>, allowed: T): T {
  return ops.scale(ops.addScalar(allowed, -1), 1e9);
}
