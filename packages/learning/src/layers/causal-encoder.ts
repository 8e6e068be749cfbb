import type { Ops } from '../ops.ts';
import { attend, lastOf, linear, norm } from './attention.ts';
import { type Dropout, keepAll } from './dropout.ts';

export interface EncoderSizes {
  layers: number;
  heads: number;
  ffnDim: number;
}

/**
 * 1 where an element may look: at itself and at earlier elements of its own segment. Several sequences lie in one row, told
 * apart by their segment, so that short ones waste no padding.
 * @param segments int32 [R, L] @returns [R, 1, L, L]
 */
export function packedCausalMask<T>(ops: Ops<T>, segments: T): T {
  const [rows, length] = ops.shape(segments) as [number, number];
  const causal = Array.from({ length: length * length }, (_, i) =>
    i % length <= Math.floor(i / length) ? 1 : 0,
  );
  const same = ops.equal(
    ops.reshape(segments, [rows, 1, length, 1]),
    ops.reshape(segments, [rows, 1, 1, length]),
  );
  return ops.mul(same, ops.constant(causal, [1, 1, length, length]));
}

/**
 * Transformer over sequences: a = x + Self(RMS(x)); out = a + FFN(RMS(a)); without a norm at the end.
 * @param x [R, L, D] @param allowed [R, 1, L, L], see `packedCausalMask`
 */
export function causalEncoder<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  allowed: T,
  sizes: EncoderSizes,
  drop: Dropout<T> = keepAll,
): T {
  const [rows, length] = ops.shape(x) as [number, number, number];
  const dim = lastOf(ops.shape(x));
  const grid = (y: T): T => ops.reshape(y, [rows, length, dim]);
  let h = ops.reshape(x, [rows * length, dim]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `${name}.layer${layer}`;
    const normed = norm(ops, `${at}.normSelf`, h);
    const read = attend(
      ops,
      grid(linear(ops, `${at}.q`, normed, dim)),
      grid(linear(ops, `${at}.k`, normed, dim)),
      grid(linear(ops, `${at}.v`, normed, dim)),
      { heads: sizes.heads, allowed },
    );
    h = ops.add(h, drop(linear(ops, `${at}.out`, ops.reshape(read, [rows * length, dim]), dim)));
    const inner = ops.silu(linear(ops, `${at}.up`, norm(ops, `${at}.normFfn`, h), sizes.ffnDim));
    h = ops.add(h, drop(linear(ops, `${at}.down`, inner, dim)));
  }
  return grid(h);
}
