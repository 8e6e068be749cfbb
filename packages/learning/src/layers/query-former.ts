import { normal, type Ops, ones } from '../ops.ts';
import { absorbedWeights, absorbingPays, read } from './absorbed-attention.ts';
import { attend, forbid, linear, norm } from './attention.ts';
import type { Dropout } from './dropout.ts';

export interface QueryFormerSizes {
  queries: number;
  blocks: number;
  heads: number;
  ffnDim: number;
  /** false: keys and values are always projected. */
  absorb?: boolean;
}

/**
 * Query-Formers (paper, equation 3): learned queries that read a sequence by cross-attention and so compress it to M vectors.
 * Several of them, each with weights of its own, run as one batched computation.
 *
 * Block: y = q + Cross(RMS(q), RMS(x)); q = y + FFN(RMS(y)).
 * @param x [S, N, L, D] sequences of S Query-Formers @param present 1 where an element exists, 0 for padding [S, N, L]
 * @returns [S, N, M, D]
 */
export function queryFormers<T>(ops: Ops<T>, name: string, x: T, present: T, sizes: QueryFormerSizes): T {
  const { queries: m, heads, ffnDim, blocks, absorb = true } = sizes;
  const [sets, rows, length, dim] = ops.shape(x) as [number, number, number, number];
  const learned = ops.parameter(`${name}.queries`, [sets, m, dim], normal(1), { decay: false });
  // The first block's queries are the same for every row: [S, 1, M, D].
  let q = ops.reshape(learned, [sets, 1, m, dim]);
  for (let b = 0; b < blocks; b++) {
    const at = `${name}.block${b}`;
    const normed = norm(ops, `${at}.normQuery`, q);
    const reader = absorb && absorbingPays(m, length, heads, dim) ? readAbsorbed : readProjected;
    const y = ops.add(q, reader(ops, at, normed, x, present, heads));
    const flat = ops.reshape(y, [sets, rows * m, dim]);
    const inner = ops.silu(linear(ops, `${at}.up`, norm(ops, `${at}.normFfn`, flat), ffnDim));
    q = ops.reshape(ops.add(flat, linear(ops, `${at}.down`, inner, dim)), [sets, rows, m, dim]);
  }
  return norm(ops, `${name}.norm`, q);
}

/** @param q [S, N or 1, M, D] @param x [S, N, L, D] @param present [S, N, L] @returns [S, N, M, D] */
function readAbsorbed<T>(ops: Ops<T>, at: string, q: T, x: T, present: T, heads: number): T {
  const [sets, rows, length, dim] = ops.shape(x) as [number, number, number, number];
  const [, own, m] = ops.shape(q) as [number, number, number];
  const weights = absorbedWeights(ops, at, { sets, dim, heads });
  const allowed = ops.reshape(present, [sets, rows, 1, length]);
  const gain = ops.parameter(`${at}.normSequence`, [dim], ones, { decay: false });
  const g = ops.matmul(ops.reshape(q, [sets, own * m, dim]), weights.queryKey);
  const y = read(ops, ops.reshape(g, [sets, own, m * heads, dim]), x, {
    norm: { kind: 'rms', gain },
    mask: forbid(ops, allowed),
    allowed,
  });
  const out = ops.matmul(ops.reshape(y, [sets, rows * m, heads * dim]), weights.valueOut);
  return ops.reshape(out, [sets, rows, m, dim]);
}

/** The same with keys and values projected. */
function readProjected<T>(ops: Ops<T>, at: string, q: T, x: T, present: T, heads: number): T {
  const [sets, rows, length, dim] = ops.shape(x) as [number, number, number, number];
  const [, own, m] = ops.shape(q) as [number, number, number];
  const source = norm(ops, `${at}.normSequence`, ops.reshape(x, [sets, rows * length, dim]));
  const apart = (y: T, n: number): T => ops.reshape(y, [sets * rows, n, dim]);
  const queries = linear(ops, `${at}.q`, ops.reshape(q, [sets, own * m, dim]), dim);
  const everyRow = ops.broadcastTo(ops.reshape(queries, [sets, own, m, dim]), [sets, rows, m, dim]);
  const y = attend(
    ops,
    apart(everyRow, m),
    apart(linear(ops, `${at}.k`, source, dim), length),
    apart(linear(ops, `${at}.v`, source, dim), length),
    { heads, allowed: ops.reshape(present, [sets * rows, 1, 1, length]) },
  );
  const out = linear(ops, `${at}.out`, ops.reshape(y, [sets, rows * m, dim]), dim);
  return ops.reshape(out, [sets, rows, m, dim]);
}

/**
 * One Query-Former at every position of packed rows: M queries per position that read what lies before it.
 * @param x [R, L, D] @param readable [R, L, L] 1 where a position may look
 * @returns [R, L, M, D]
 */
export function prefixQueryFormer<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  readable: T,
  sizes: QueryFormerSizes,
  drop: Dropout<T>,
): T {
  const { queries: m, heads, ffnDim, blocks } = sizes;
  const [rows, length, dim] = ops.shape(x) as [number, number, number];
  const wide = [rows, length, m, length];
  const allowed = ops.reshape(ops.broadcastTo(ops.reshape(readable, [rows, length, 1, length]), wide), [
    rows,
    1,
    length * m,
    length,
  ]);
  const n = rows * length * m;
  const learned = ops.parameter(`${name}.queries`, [m, dim], normal(1), { decay: false });
  let q = ops.reshape(ops.broadcastTo(ops.reshape(learned, [1, m, dim]), [rows * length, m, dim]), [n, dim]);
  const flat = ops.reshape(x, [rows * length, dim]);
  for (let b = 0; b < blocks; b++) {
    const at = `${name}.block${b}`;
    const source = norm(ops, `${at}.normSequence`, flat);
    const grid = (y: T, count: number): T => ops.reshape(y, [rows, count, dim]);
    const read = attend(
      ops,
      grid(linear(ops, `${at}.q`, norm(ops, `${at}.normQuery`, q), dim), length * m),
      grid(linear(ops, `${at}.k`, source, dim), length),
      grid(linear(ops, `${at}.v`, source, dim), length),
      { heads, allowed },
    );
    q = ops.add(q, drop(linear(ops, `${at}.out`, ops.reshape(read, [n, dim]), dim)));
    const inner = ops.silu(linear(ops, `${at}.up`, norm(ops, `${at}.normFfn`, q), ffnDim));
    q = ops.add(q, drop(linear(ops, `${at}.down`, inner, dim)));
  }
  return ops.reshape(norm(ops, `${name}.norm`, q), [rows, length, m, dim]);
}
