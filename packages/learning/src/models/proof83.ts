/**
 * The model of the speed comparison with PyTorch: 8,303,744 parameters, the peer's order of layers, norms and losses, and its
 * parameter names. It trains nothing in the pipeline; the retrieval model is onemall.ts.
 *
 * Query-Formers over three sequences of 100 events, four decoder layers over BOS and three codes (causal self-attention, cross-
 * attention, 8 experts of which 2 are active), next-token loss + 0.1 contrast + 0.1 clipped surrogate + 0.01 load balance.
 */
import { absorbedWeights, read } from '../layers/absorbed-attention.ts';
import { attend, forbid } from '../layers/attention.ts';
import { mixtureOfExperts } from '../layers/mixture-of-experts.ts';
import { normal, type Ops, ones, zeros } from '../ops.ts';

export const proof83 = {
  batchSize: 256,
  length: 100,
  sequences: 3,
  queries: 10,
  dim: 128,
  heads: 4,
  layers: 4,
  experts: 8,
  activeExperts: 2,
  ffnDim: 512,
  queryFfnDim: 256,
  codes: 4096,
  levels: 3,
  capacityFactor: 1.25,
  temperature: 0.1,
  clip: 0.2,
};
export type Proof83Sizes = typeof proof83;

/** Inputs by name: shape and type. */
export function proof83Inputs(
  c: Proof83Sizes,
): Record<string, { shape: number[]; dtype: 'int32' | 'float32' }> {
  const inputs: Record<string, { shape: number[]; dtype: 'int32' | 'float32' }> = {};
  for (let s = 0; s < c.sequences; s++) {
    for (let l = 0; l < c.levels; l++)
      inputs[`seq${s}_${l}`] = { shape: [c.batchSize * c.length], dtype: 'int32' };
    inputs[`mask${s}`] = { shape: [c.batchSize, 1, 1, c.length], dtype: 'float32' };
  }
  for (let l = 0; l < c.levels; l++) inputs[`code${l}`] = { shape: [c.batchSize], dtype: 'int32' };
  inputs.adv = { shape: [c.batchSize], dtype: 'float32' };
  inputs.oldlp = { shape: [c.batchSize], dtype: 'float32' };
  return inputs;
}

/** The scalar loss. */
export function proof83Loss<T>(ops: Ops<T>, c: Proof83Sizes): T {
  const { batchSize: b, dim } = c;
  const inputs = proof83Inputs(c);
  const input = (name: string): T => ops.input(name, inputs[name]!.shape, inputs[name]!.dtype);
  const context = ops.concat(
    Array.from({ length: c.sequences }, (_, s) => queryFormer(ops, c, s, input)),
    1,
  );
  const memory = c.sequences * c.queries;
  const codes = Array.from({ length: c.levels }, (_, l) => input(`code${l}`));
  const codeVectors = codes.map((ids, l) => ops.gather(levelTable(ops, c, l), ids));

  const bos = ops.broadcastTo(ops.reshape(ops.parameter('bos', [1, dim], normal(0.05)), [1, 1, dim]), [
    b,
    1,
    dim,
  ]);
  const tokens = c.levels + 1;
  const sequence = ops.concat([bos, ...codeVectors.map((v) => ops.reshape(v, [b, 1, dim]))], 1);
  const position = ops.parameter('pos', [1, tokens, dim], normal(0.05));
  let h = ops.reshape(ops.add(sequence, position), [b * tokens, dim]);
  let balance: T | undefined;
  for (let i = 0; i < c.layers; i++) {
    const at = `dec${i}`;
    h = ops.add(h, selfAttention(ops, c, `${at}.self`, norm(ops, `${at}.ln0`, h)));
    h = ops.add(h, crossAttention(ops, c, `${at}.cross`, norm(ops, `${at}.ln1`, h), context));
    const moe = experts(ops, c, `${at}.moe`, norm(ops, `${at}.ln2`, h));
    h = ops.add(h, moe.y);
    balance = balance === undefined ? moe.balance : ops.add(balance, moe.balance);
  }
  const grid = ops.reshape(norm(ops, 'out.ln', h), [b, tokens, dim]);
  const logProb = codes
    .map((ids, l) => {
      const hidden = ops.reshape(ops.slice(grid, [0, l, 0], [b, 1, dim]), [b, dim]);
      return ops.pickLogSoftmax(linear(ops, `head${l}`, hidden, c.codes), ids);
    })
    .reduce((x, y) => ops.add(x, y));
  const nextToken = meanOf(ops, logProb, -1);

  const user = ops.scale(ops.sum(ops.reshape(context, [b, memory, dim]), [1]), 1 / memory);
  const item = codeVectors.reduce((x, y) => ops.add(x, y));
  const unit = (x: T): T => ops.mul(x, ops.rsqrt(ops.addScalar(ops.sum(ops.mul(x, x), [1], true), 1e-6)));
  const similarity = ops.scale(
    ops.matmul(unit(linear(ops, 'cl.u', user, dim)), unit(linear(ops, 'cl.v', item, dim)), false, true),
    1 / c.temperature,
  );
  const own = ops.constantInt(
    Array.from({ length: b }, (_, i) => i),
    [b],
  );
  const contrast = meanOf(ops, ops.pickLogSoftmax(similarity, own), -1);

  const ratio = ops.exp(ops.clip(ops.sub(logProb, input('oldlp')), -5, 5));
  const advantage = input('adv');
  const clipped = ops.mul(ops.clip(ratio, 1 - c.clip, 1 + c.clip), advantage);
  const surrogate = meanOf(ops, ops.minimum(ops.mul(ratio, advantage), clipped), -1);
  return ops.add(
    ops.add(nextToken, ops.scale(contrast, 0.1)),
    ops.add(ops.scale(surrogate, 0.1), ops.scale(balance!, 0.01)),
  );
}

/** factor x mean of x [B]. */
const meanOf = <T>(ops: Ops<T>, x: T, factor: number): T =>
  ops.scale(ops.sum(x, [0]), factor / ops.shape(x)[0]!);

function linear<T>(ops: Ops<T>, name: string, x: T, outDim: number): T {
  const inDim = ops.shape(x)[1]!;
  return ops.matmul(x, ops.parameter(name, [inDim, outDim], normal(1 / Math.sqrt(inDim))));
}
function normWeights<T>(ops: Ops<T>, name: string, dim: number): { gain: T; bias: T } {
  return { gain: ops.parameter(`${name}.g`, [dim], ones), bias: ops.parameter(`${name}.b`, [dim], zeros) };
}
function norm<T>(ops: Ops<T>, name: string, x: T): T {
  const { gain, bias } = normWeights(ops, name, ops.shape(x).at(-1)!);
  return ops.layerNorm(x, gain, bias);
}
function levelTable<T>(ops: Ops<T>, c: Proof83Sizes, level: number): T {
  return ops.parameter(`emb${level}`, [c.codes, c.dim], normal(0.05));
}

/** Learned queries read a sequence, then a feed-forward network: [B, queries, D]. */
function queryFormer<T>(ops: Ops<T>, c: Proof83Sizes, s: number, input: (name: string) => T): T {
  const { batchSize: b, length, queries, heads, dim } = c;
  const at = `qf${s}`;
  const events = Array.from({ length: c.levels }, (_, l) =>
    ops.gather(levelTable(ops, c, l), input(`seq${s}_${l}`)),
  ).reduce((x, y) => ops.add(x, y));
  const weights = absorbedWeights(ops, at, { dim, heads });
  const learned = ops.parameter(`${at}.queries`, [queries, dim], normal(0.5));
  const g = ops.matmul(learned, ops.reshape(weights.queryKey, [dim, heads * dim]));
  const readings = read(
    ops,
    ops.reshape(g, [1, queries * heads, dim]),
    ops.reshape(events, [b, length, dim]),
    {
      norm: { kind: 'layer', ...normWeights(ops, `${at}.ln0`, dim) },
      mask: ops.reshape(input(`mask${s}`), [b, 1, length]),
    },
  );
  const flat = ops.reshape(readings, [b * queries, heads * dim]);
  const y = norm(ops, `${at}.ln1`, ops.matmul(flat, ops.reshape(weights.valueOut, [heads * dim, dim])));
  const inner = ops.silu(linear(ops, `${at}.f1`, y, c.queryFfnDim));
  return ops.reshape(ops.add(y, linear(ops, `${at}.f2`, inner, dim)), [b, queries, dim]);
}

/** @param x [B tokens, D] @param context [B, memory, D] */
function crossAttention<T>(ops: Ops<T>, c: Proof83Sizes, name: string, x: T, context: T): T {
  const { batchSize: b, heads, dim } = c;
  const [rows] = ops.shape(x) as [number];
  const weights = absorbedWeights(ops, name, { dim, heads });
  const g = ops.matmul(x, ops.reshape(weights.queryKey, [dim, heads * dim]));
  const readings = read(ops, ops.reshape(g, [b, (rows / b) * heads, dim]), context, {
    norm: { kind: 'none' },
  });
  const flat = ops.reshape(readings, [rows, heads * dim]);
  return ops.matmul(flat, ops.reshape(weights.valueOut, [heads * dim, dim]));
}

function selfAttention<T>(ops: Ops<T>, c: Proof83Sizes, name: string, x: T): T {
  const { batchSize: b, heads, dim } = c;
  const t = ops.shape(x)[0]! / b;
  const part = (p: string): T => ops.reshape(linear(ops, `${name}.${p}`, x, dim), [b, t, dim]);
  const causal = Array.from({ length: t * t }, (_, i) => (i % t <= Math.floor(i / t) ? 1 : 0));
  const mask = forbid(ops, ops.constant(causal, [1, 1, t, t]));
  const y = attend(ops, part('q'), part('k'), part('v'), { heads, mask });
  return linear(ops, `${name}.out`, ops.reshape(y, [b * t, dim]), dim);
}

/** Experts and the loss that balances them: E sum over experts of mean probability x share of the routed tokens. */
function experts<T>(ops: Ops<T>, c: Proof83Sizes, name: string, x: T): { y: T; balance: T } {
  const n = ops.shape(x)[0]!;
  const present = ops.constant(new Float32Array(n).fill(1), [n, 1]);
  const { y, scores, loads } = mixtureOfExperts(ops, name, x, present, {
    experts: c.experts,
    active: c.activeExperts,
    ffnDim: c.ffnDim,
    slots: Math.ceil((c.capacityFactor * n * c.activeExperts) / c.experts),
    balanceRate: 0,
    precedence: 0,
  });
  const probability = ops.scale(ops.sum(scores!, [0]), 1 / n);
  const share = ops.scale(loads!, 1 / (c.activeExperts * n));
  return { y, balance: ops.scale(ops.sum(ops.mul(probability, share), [0]), c.experts) };
}
