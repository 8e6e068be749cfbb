import type { Ops } from '../ops.ts';
import { absorbedWeights, absorbingPays, read } from './absorbed-attention.ts';
import { attend, forbid, linear, norm } from './attention.ts';
import { type Dropout, keepAll } from './dropout.ts';
import { type ExpertsResult, mixtureOfExperts } from './mixture-of-experts.ts';

/** Sequences that share contexts: C contexts, each read by R rows of T tokens. Its tokens lie as [C, R, T] in the flat list. */
export interface TokenBlock {
  contexts: number;
  rows: number;
  tokens: number;
}
export const tokensIn = (block: TokenBlock): number => block.contexts * block.rows * block.tokens;

export interface DecoderSizes {
  layers: number;
  heads: number;
  ffnDim: number;
  experts: number;
  activeExperts: number;
  slots: number;
  balanceRate: number;
  precedence: number;
  residual: 'sublayer' | 'layer';
  /** Of the Query-Formers that made the context; 0: it holds events, of length 0 where padded, which no token reads. */
  queries: number;
  /** false: cross-attention always projects keys and values. */
  absorb?: boolean;
}

/** What of the context each row may read; everything where absent. */
export interface DecoderOptions<T> {
  /** 1 where a row may look, 0 elsewhere: [C, R, M] of the only block. */
  readable?: T;
  drop?: Dropout<T>;
}

export interface DecoderResult<T> {
  /** [N, D] after the last norm. */
  hidden: T;
  /** Of each layer with experts. */
  experts: ExpertsResult<T>[];
}

/**
 * Decoder of the paper (equations 5 and 6): cross-attention to the user context, causal self-attention, mixture of experts.
 * a = h + Cross(RMS(h), F); b = a + Self(RMS(a)); out = b + MoE(RMS(b)); with residual "layer" only h + MoE(Self(Cross(h))).
 * @param h [N, D] tokens of all blocks, one block after the other
 * @param context [C, M, D] contexts of all blocks, in the same order
 * @param present [N, 1], 0 for tokens of padding
 */
export function decoder<T>(
  ops: Ops<T>,
  name: string,
  h: T,
  context: T,
  present: T,
  blocks: readonly TokenBlock[],
  sizes: DecoderSizes,
  { readable, drop = keepAll }: DecoderOptions<T> = {},
): DecoderResult<T> {
  const allowed = readable === undefined ? undefined : forEveryToken(ops, readable, blocks);
  const add = (x: T, y: T): T => (sizes.residual === 'sublayer' ? ops.add(x, y) : y);
  const experts: ExpertsResult<T>[] = [];
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `${name}.layer${layer}`;
    const cross = crossAttention(
      ops,
      `${at}.cross`,
      norm(ops, `${at}.normCross`, h),
      context,
      blocks,
      { heads: sizes.heads, absorb: sizes.absorb ?? true, ofEvents: sizes.queries === 0 },
      allowed,
    );
    const a = add(h, drop(cross));
    const self = causalSelfAttention(ops, `${at}.self`, norm(ops, `${at}.normSelf`, a), blocks, sizes.heads);
    const b = add(a, drop(self));
    const moe = mixtureOfExperts(ops, `${at}.experts`, norm(ops, `${at}.normExperts`, b), present, {
      ...sizes,
      active: sizes.activeExperts,
    });
    experts.push(moe);
    h = ops.add(sizes.residual === 'sublayer' ? b : h, drop(moe.y));
  }
  return { hidden: norm(ops, `${name}.norm`, h), experts: experts.filter((e) => e.loads !== undefined) };
}

/** [C, R, M] to the mask [C, 1, R T, M] of a block's attention. */
function forEveryToken<T>(ops: Ops<T>, readable: T, blocks: readonly TokenBlock[]): T {
  const [contexts, rows, memory] = ops.shape(readable) as [number, number, number];
  const [block] = blocks;
  if (blocks.length !== 1 || block!.contexts !== contexts || block!.rows !== rows)
    throw new Error(`readable [${contexts}, ${rows}, ${memory}] needs one block of that many rows`);
  const wide = [contexts, rows, block!.tokens, memory];
  return ops.reshape(ops.broadcastTo(ops.reshape(readable, [contexts, rows, 1, memory]), wide), [
    contexts,
    1,
    rows * block!.tokens,
    memory,
  ]);
}

/** Every token reads its own context. Rows that share a context share its keys and values. */
function crossAttention<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  context: T,
  blocks: readonly TokenBlock[],
  { heads, absorb, ofEvents }: { heads: number; absorb: boolean; ofEvents: boolean },
  readable: T | undefined,
): T {
  const [, memory, dim] = ops.shape(context) as [number, number, number];
  let first = 0;
  return perBlock(ops, x, blocks, (part, block) => {
    const queries = block.rows * block.tokens;
    const own = ops.slice(context, [first, 0, 0], [block.contexts, memory, dim]);
    first += block.contexts;
    const allowed = ofEvents ? whereEvents(ops, own) : readable;
    return absorb && readable === undefined && absorbingPays(queries, memory, heads, dim)
      ? readAbsorbed(ops, name, part, own, heads, allowed)
      : readProjected(ops, name, part, own, heads, allowed);
  });
}

/** 1 where a context [C, M, D] holds an event: [C, 1, 1, M]. */
export function whereEvents<T>(ops: Ops<T>, context: T): T {
  const [contexts, memory] = ops.shape(context) as [number, number, number];
  return ops.reshape(ops.sign(ops.stopGradient(ops.meanSquare(context))), [contexts, 1, 1, memory]);
}

/** @param x [C R, D] @param context [C, M, D] @param allowed [C, 1, 1, M] @returns [C R, D] */
function readAbsorbed<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  context: T,
  heads: number,
  allowed: T | undefined,
): T {
  const [contexts, memory, dim] = ops.shape(context) as [number, number, number];
  const [n] = ops.shape(x) as [number];
  const weights = absorbedWeights(ops, name, { dim, heads });
  const g = ops.matmul(x, ops.reshape(weights.queryKey, [dim, heads * dim]));
  const y = read(ops, ops.reshape(g, [contexts, (n / contexts) * heads, dim]), context, {
    norm: { kind: 'none' },
    ...(allowed !== undefined && whereAllowed(ops, ops.reshape(allowed, [contexts, 1, memory]))),
  });
  return ops.matmul(ops.reshape(y, [n, heads * dim]), ops.reshape(weights.valueOut, [heads * dim, dim]));
}

const whereAllowed = <T>(ops: Ops<T>, allowed: T): { mask: T; allowed: T } => ({
  mask: forbid(ops, allowed),
  allowed,
});

/** The same with keys and values projected. */
function readProjected<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  context: T,
  heads: number,
  allowed: T | undefined,
): T {
  const [contexts, memory, dim] = ops.shape(context) as [number, number, number];
  const [n] = ops.shape(x) as [number];
  const source = ops.reshape(context, [contexts * memory, dim]);
  const apart = (y: T): T => ops.reshape(y, [contexts, ops.shape(y)[0]! / contexts, dim]);
  const part = (p: string, y: T): T => apart(linear(ops, `${name}.${p}`, y, dim));
  const y = attend(ops, part('q', x), part('k', source), part('v', source), {
    heads,
    ...(allowed !== undefined && { allowed }),
  });
  return linear(ops, `${name}.out`, ops.reshape(y, [n, dim]), dim);
}

/** A token sees itself and those before it in its row. */
function causalSelfAttention<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  blocks: readonly TokenBlock[],
  heads: number,
): T {
  const dim = ops.shape(x)[1]!;
  const queries = linear(ops, `${name}.q`, x, dim);
  const keys = linear(ops, `${name}.k`, x, dim);
  const values = linear(ops, `${name}.v`, x, dim);
  let begin = 0;
  const read = perBlock(ops, queries, blocks, (part, block) => {
    const n = tokensIn(block);
    const t = block.tokens;
    const shape = [block.contexts * block.rows, t, dim];
    const own = (y: T): T => ops.reshape(ops.slice(y, [begin, 0], [n, dim]), shape);
    const causal = Array.from({ length: t * t }, (_, i) => (i % t <= Math.floor(i / t) ? 1 : 0));
    const allowed = ops.constant(causal, [1, 1, t, t]);
    const y = attend(ops, ops.reshape(part, shape), own(keys), own(values), { heads, allowed });
    begin += n;
    return y;
  });
  return linear(ops, `${name}.out`, read, dim);
}

/** Applies f to the tokens [n, D] of each block and joins the results to [N, D]. */
function perBlock<T>(
  ops: Ops<T>,
  x: T,
  blocks: readonly TokenBlock[],
  f: (part: T, block: TokenBlock) => T,
): T {
  const dim = ops.shape(x)[1]!;
  let begin = 0;
  const results = blocks.map((block) => {
    const n = tokensIn(block);
    const part = ops.slice(x, [begin, 0], [n, dim]);
    begin += n;
    return ops.reshape(f(part, block), [n, dim]);
  });
  return ops.concat(results, 0);
}
