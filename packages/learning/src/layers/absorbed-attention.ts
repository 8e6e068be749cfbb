/**
 * Cross-attention whose key and value projections are absorbed into the queries and the output projection. With few queries
 * per sequence this is the same function in far fewer operations, because the long side is never projected:
 *
 *   (q Wq_h) (x Wk_h)' = (q Wq_h Wk_h') x'          A_h (x Wv_h) Wo_h = (A_h x) (Wv_h Wo_h)
 *
 * For R queries and H heads over L elements of size D it costs 4 R H L D operations instead of 4 L D^2 + 4 R L D. The norm of the
 * sequence is absorbed as well: its scale per element moves to the scores and the weights, its gain to the queries and the result.
 */
import type { Ops } from '../ops.ts';
import { normal } from '../ops.ts';

/** Whether absorbing costs fewer operations than projecting, for `queries` per sequence of `length` elements. */
export function absorbingPays(queries: number, length: number, heads: number, dim: number): boolean {
  const absorbed = 2 * queries * heads * length * dim + 2 * queries * heads * dim * dim;
  const projected = 2 * length * dim * dim + 2 * queries * length * dim + 2 * queries * dim * dim;
  return absorbed < projected;
}

export interface AbsorbedWeights<T> {
  /** [S, D, H D]: Wq_h Wk_h' / sqrt(D / H), head beside head. */
  queryKey: T;
  /** [S, H D, D]: Wv_h Wo_h, head below head. */
  valueOut: T;
}

/** From the parameters name.q, .k, .v and .out, each [S, D, D] (or [D, D], S being 1 then), that projecting uses too. */
export function absorbedWeights<T>(
  ops: Ops<T>,
  name: string,
  { sets, dim, heads }: { sets?: number; dim: number; heads: number },
): AbsorbedWeights<T> {
  const size = dim / heads;
  const s = sets ?? 1;
  const shape = sets === undefined ? [dim, dim] : [sets, dim, dim];
  const weight = (part: string): T => ops.parameter(`${name}.${part}`, shape, normal(1 / Math.sqrt(dim)));
  /** [S, D, H D/H] -> [S, H, D, D/H] */
  const byHead = (x: T): T => ops.transpose(ops.reshape(x, [s, dim, heads, size]), [0, 2, 1, 3]);
  const pairs = ops.matmul(
    byHead(ops.scale(weight('q'), 1 / Math.sqrt(size))),
    byHead(weight('k')),
    false,
    true,
  );
  const out = ops.reshape(weight('out'), [s, heads, size, dim]);
  return {
    queryKey: ops.reshape(ops.transpose(pairs, [0, 2, 1, 3]), [s, dim, heads * dim]),
    valueOut: ops.reshape(ops.matmul(byHead(weight('v')), out), [s, heads * dim, dim]),
  };
}

/** A norm of the sequence's elements before they are read. */
export type SequenceNorm<T> =
  | { kind: 'none' }
  | { kind: 'rms'; gain: T }
  | { kind: 'layer'; gain: T; bias: T };

const RMS_EPSILON = 1e-6;
const LAYER_EPSILON = 1e-5;

/**
 * softmax(g norm(x)' + mask) norm(x).
 * @param g [.., R, D], leading axes of size 1 where queries are shared @param x [.., L, D]
 * @param mask added to the scores, broadcast to [.., R, L] @param allowed multiplied with the weights, broadcast likewise
 * @returns [.., R, D]
 */
export function read<T>(
  ops: Ops<T>,
  g: T,
  x: T,
  { norm, mask, allowed }: { norm: SequenceNorm<T>; mask?: T; allowed?: T },
): T {
  const lead = ops.shape(x).slice(0, -2);
  const [length, dim] = ops.shape(x).slice(-2) as [number, number];
  const weigh = (scores: T): T => {
    const weights = ops.softmax(mask === undefined ? scores : ops.add(scores, mask));
    return allowed === undefined ? weights : ops.mul(weights, allowed);
  };
  const score = (queries: T): T => ops.matmul(queries, x, false, true);
  if (norm.kind === 'none') return ops.matmul(weigh(score(g)), x);

  const gained = ops.mul(g, norm.gain);
  const meanSquare = ops.reshape(ops.meanSquare(x), [...lead, 1, length]);
  if (norm.kind === 'rms') {
    const inverse = ops.rsqrt(ops.addScalar(meanSquare, RMS_EPSILON));
    const weights = ops.mul(weigh(ops.mul(score(gained), inverse)), inverse);
    return ops.mul(ops.matmul(weights, x), norm.gain);
  }
  // Queries without their mean read the sequence without its mean. One more row of queries takes the mean itself.
  const centred = (y: T): T => ops.sub(y, ops.scale(ops.sum(y, [-1], true), 1 / dim));
  const queryLead = ops.shape(g).slice(0, -2);
  const sets = queryLead.reduce((a, b) => a * b, 1);
  const average = ops.constant(new Float32Array(sets * dim).fill(1 / dim), [...queryLead, 1, dim]);
  const both = score(ops.concat([centred(gained), average], queryLead.length));
  const rows = ops.shape(g).at(-2)!;
  const part = (begin: number, size: number): T =>
    ops.slice(both, [...lead.map(() => 0), begin, 0], [...lead, size, length]);
  const mean = part(rows, 1);
  const variance = ops.sub(meanSquare, ops.mul(mean, mean));
  const inverse = ops.rsqrt(ops.addScalar(variance, LAYER_EPSILON));
  const weights = weigh(ops.mul(part(0, rows), inverse));
  const readings = centred(ops.matmul(ops.mul(weights, inverse), x));
  return ops.add(ops.mul(readings, norm.gain), norm.bias);
}
