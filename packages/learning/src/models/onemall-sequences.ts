/**
 * The OneMall retrieval model on fixed sets of user sequences: the decoder, heads and losses of onemall.ts, with the options
 * that matter where every position of a history is a sample. A causal encoder over the history takes the place of the
 * Query-Formers (`history`), the softmax may run over the trie's valid children (`normalizer`), the contrast may sit at BOS
 * or after the last code, and frozen item vectors may join the codes.
 */
import { forbid, linear, norm } from '../layers/attention.ts';
import { causalEncoder, packedCausalMask } from '../layers/causal-encoder.ts';
import type { TokenBlock } from '../layers/decoder.ts';
import { tokensIn } from '../layers/decoder.ts';
import { type Dropout, dropout, keepAll } from '../layers/dropout.ts';
import { contrastiveLoss, unitLength } from '../layers/losses.ts';
import { mixtureOfExperts } from '../layers/mixture-of-experts.ts';
import { nextToken } from '../layers/next-token.ts';
import { prefixQueryFormer } from '../layers/query-former.ts';
import { normal, type Ops } from '../ops.ts';
import {
  atPosition,
  codeLogits,
  decode,
  embedding,
  type GeneratorSizes,
  levelRows,
  sidEmbedding,
  type TokenLayout,
} from './onemall.ts';

export interface SequenceModel extends GeneratorSizes {
  /** causal: the decoder reads the states of a causal encoder up to its position; query-former: M queries per position. */
  history: 'causal' | 'query-former';
  /** Layers of the causal encoder. */
  encoderLayers: number;
  /** Longest history, in items. */
  maxLength: number;
  /** codes: softmax over all codes of a level; trie: over those that continue an existing SID. */
  normalizer: 'codes' | 'trie';
  /** Share of the target's probability that is spread over all that the softmax runs over. */
  labelSmoothing: number;
  dropout: number;
  contrast: { at: 'bos' | 'last' | 'none'; weight: number };
  /** Items have an embedding of their own in the item tower; numbered from 1. */
  numItems: number;
  /** Length of the frozen vectors that join the history's codes; 0 for none. */
  vectorDim: number;
}

/** One set of codes, of as many levels as `numCodes` has. */
export function singleLayout(numCodes: readonly number[]): TokenLayout {
  const name = 'sequences';
  return {
    scenarios: [name],
    numCodes: { [name]: numCodes },
    offsets: new Map([[name, numCodes.map(() => 0)]]),
    rows: numCodes,
  };
}

/** Frozen vectors have unit variance; this keeps them from drowning the codes at the start. */
const VECTOR_GAIN = 0.05;

interface History<T> {
  /** [C, M, D] what the decoder reads. */
  context: T;
  /** [C, R, M] 1 where row r may read; absent where it may read all. */
  readable?: T;
  /** [C x R, D] joins BOS; absent without a causal encoder. */
  start?: T;
}

const levelsOf = (model: SequenceModel): number[] => [...model.layout.rows.keys()];

/** Inputs: history.codes1.. int32 [rows, length] (-1 padded), positions and segments int32 [rows, length], history.vectors [rows, length, V]. */
function elements<T>(ops: Ops<T>, model: SequenceModel, rows: number, length: number): T {
  const { preset, vectorDim, maxLength } = model;
  const codes = levelsOf(model).map((l) => ops.input(`history.codes${l + 1}`, [rows, length], 'int32'));
  const position = ops.gather(
    ops.parameter('history.position', [maxLength, preset.dim], normal(0.02), { decay: false }),
    ops.input('positions', [rows, length], 'int32'),
  );
  const x = ops.add(sidEmbedding(ops, model, codes), position);
  if (vectorDim === 0) return x;
  const vectors = ops.reshape(ops.input('history.vectors', [rows, length, vectorDim], 'float32'), [
    rows * length,
    vectorDim,
  ]);
  const projected = ops.scale(
    linear(ops, 'history.vector', vectors, preset.dim),
    VECTOR_GAIN * (preset.embeddingGain ?? 1),
  );
  return ops.add(x, ops.reshape(projected, [rows, length, preset.dim]));
}

/** Every position of packed rows with what lies before it. */
function packedHistory<T>(
  ops: Ops<T>,
  model: SequenceModel,
  { rows, length }: { rows: number; length: number },
  drop: Dropout<T>,
): History<T> {
  const { preset } = model;
  const { dim } = preset;
  const x = drop(elements(ops, model, rows, length));
  const allowed = packedCausalMask(ops, ops.input('segments', [rows, length], 'int32'));
  if (model.history === 'query-former') {
    const sizes = { queries: preset.queries, blocks: 1, heads: preset.heads, ffnDim: preset.ffnDim };
    const f = prefixQueryFormer(ops, 'user', x, ops.reshape(allowed, [rows, length, length]), sizes, drop);
    return { context: ops.reshape(f, [rows * length, preset.queries, dim]) };
  }
  const sizes = { layers: model.encoderLayers, heads: preset.heads, ffnDim: preset.ffnDim };
  const h = causalEncoder(ops, 'encoder', x, allowed, sizes, drop);
  return {
    context: norm(ops, 'encoder.norm', h),
    readable: ops.reshape(allowed, [rows, length, length]),
    start: ops.reshape(h, [rows * length, dim]),
  };
}

/** Rows of the decoder: contexts that each serve `rows` rows. */
const blockOf = (
  model: SequenceModel,
  { rows, length }: { rows: number; length: number },
  tokens: number,
): TokenBlock =>
  model.history === 'query-former'
    ? { contexts: rows * length, rows: 1, tokens }
    : { contexts: rows, rows: length, tokens };

/**
 * Training pass over packed rows; N = rows x length. Inputs besides the history's: row.codes1.. int32 [N] (codes of the target),
 * mask.level1.. float32 [N, V] (1 where a code continues an existing SID; with normalizer trie), weights [N] (0 for padding,
 * sums to 1); with contrast item.codes1.., item.ids int32 [N] and item.logQ [N] of the item that came next.
 * Loss = sum over the levels of the cross-entropy + contrast.weight x InfoNCE.
 */
export function sequencePass<T>(
  ops: Ops<T>,
  model: SequenceModel,
  shape: { rows: number; length: number },
): { loss: T; metrics: Record<string, T> } {
  const n = shape.rows * shape.length;
  const levels = levelsOf(model);
  const drop = dropout(ops, model.dropout);
  const weights = ops.input('weights', [n], 'float32');
  const codes = levels.map((l) => ops.input(`row.codes${l + 1}`, [n], 'int32'));
  const tokens = levels.length + (model.contrast.at === 'last' ? 1 : 0);
  const block = blockOf(model, shape, tokens);
  const hidden = decodeRows(ops, model, packedHistory(ops, model, shape, drop), codes, block, drop);

  const metrics: Record<string, T> = {};
  let loss = ops.constant([0], []);
  for (const level of levels) {
    const entropy = levelLoss(ops, model, level, atPosition(ops, hidden, [block], level), codes[level]!);
    metrics[`level${level + 1}`] = ops.sum(ops.mul(entropy, weights), [0]);
    loss = ops.add(loss, metrics[`level${level + 1}`]!);
  }
  if (model.contrast.at !== 'none') {
    const at = atPosition(ops, hidden, [block], model.contrast.at === 'bos' ? 0 : levels.length);
    const contrast = contrastiveLoss(
      ops,
      {
        users: userVectors(ops, at),
        items: itemVectors(ops, model, n),
        itemKeys: ops.input('item.ids', [n], 'int32'),
        logQ: ops.input('item.logQ', [n], 'float32'),
        weights,
      },
      model.preset.temperature,
    );
    metrics.contrast = contrast.loss;
    loss = ops.add(loss, ops.scale(contrast.loss, model.contrast.weight));
  }
  return { loss, metrics: { loss, ...metrics } };
}

function decodeRows<T>(
  ops: Ops<T>,
  model: SequenceModel,
  history: History<T>,
  codes: readonly T[],
  block: TokenBlock,
  drop: Dropout<T>,
): T {
  const rows = block.contexts * block.rows;
  const { context, start, readable } = history;
  const input = {
    context,
    codes,
    scenario: ops.constantInt(new Int32Array(rows), [rows]),
    present: ops.constant(new Float32Array(rows).fill(1), [rows]),
    ...(start !== undefined && { start }),
  };
  const slots = { slots: tokensIn(block), precedence: 0 };
  return decode(ops, model, input, [block], slots, { drop, ...(readable !== undefined && { readable }) })
    .hidden;
}

/** Cross-entropy with label smoothing over what the softmax runs over: [N]. */
function levelLoss<T>(ops: Ops<T>, model: SequenceModel, level: number, hidden: T, target: T): T {
  const logits = codeLogits(ops, model, level, hidden);
  const [n, count] = ops.shape(logits) as [number, number];
  const { labelSmoothing: smoothing } = model;
  let logProbs: T;
  let spread: T;
  if (model.normalizer === 'trie') {
    const mask = ops.input(`mask.level${level + 1}`, [n, count], 'float32');
    logProbs = ops.logSoftmax(ops.add(logits, forbid(ops, mask)));
    spread = ops.div(ops.sum(ops.mul(logProbs, mask), [1]), ops.sum(mask, [1]));
  } else {
    logProbs = ops.logSoftmax(logits);
    spread = ops.scale(ops.sum(logProbs, [1]), 1 / count);
  }
  const own = ops.scale(ops.pick(logProbs, target), smoothing - 1);
  return smoothing === 0 ? own : ops.sub(own, ops.scale(spread, smoothing));
}

function userVectors<T>(ops: Ops<T>, hidden: T): T {
  return unitLength(ops, linear(ops, 'contrast.user', hidden, ops.shape(hidden)[1]!));
}

/** f_item = MLP(codes) + an embedding of the item, of length 1. Inputs: item.codes1.. and item.ids int32 [rows]. */
function itemVectors<T>(ops: Ops<T>, model: SequenceModel, rows: number): T {
  const { dim } = model.preset;
  const codes = levelsOf(model).map((l) =>
    levelRows(ops, model, l, ops.input(`item.codes${l + 1}`, [rows], 'int32')),
  );
  const inner = ops.silu(linear(ops, 'item.mlp1', ops.concat(codes, 1), 2 * dim));
  const own = ops.gather(
    embedding(ops, 'item.own', model.numItems + 1, dim),
    ops.input('item.ids', [rows], 'int32'),
  );
  return unitLength(ops, ops.add(linear(ops, 'item.mlp2', inner, dim), own));
}

/** Items of the contrast: inputs as of `itemVectors`, output vectors [rows, D]. */
export function sequenceItems<T>(ops: Ops<T>, model: SequenceModel, rows: number): Record<string, T> {
  return { vectors: itemVectors(ops, model, rows) };
}

/** Cosines of users and all items: inputs user [rows, D], items [numItems, D], output scores [rows, numItems]. */
export function sequenceDense<T>(ops: Ops<T>, model: SequenceModel, rows: number): Record<string, T> {
  const { dim } = model.preset;
  const users = ops.input('user', [rows, dim], 'float32');
  const items = ops.input('items', [model.numItems, dim], 'float32');
  return { scores: ops.matmul(users, items, false, true) };
}

/**
 * What a beam search reads of histories that lie one to a row from its left; inputs as of `elements`, and lastPlace int32
 * [rows], the flat index of each row's newest element.
 * @returns context [rows, M, D], start [rows, D]
 */
export function sequenceContext<T>(
  ops: Ops<T>,
  model: SequenceModel,
  shape: { rows: number; length: number },
): Record<string, T> {
  const { dim } = model.preset;
  const { context, start } = packedHistory(ops, model, shape, keepAll);
  const last = ops.input('lastPlace', [shape.rows], 'int32');
  const atLast = (x: T): T => ops.gather(ops.stopGradient(x), last);
  if (start !== undefined) return { context, start: atLast(start) };
  const memory = model.preset.queries * dim;
  const f = ops.reshape(context, [shape.rows * shape.length, memory]);
  return {
    context: ops.reshape(ops.gather(ops.stopGradient(f), last), [shape.rows, model.preset.queries, dim]),
  };
}

/** Elements of the context that a decoder reads per history. */
export const contextLength = (model: SequenceModel, length: number): number =>
  model.history === 'query-former' ? model.preset.queries : length;

/** Numbers of one token in the cache: key and value of each layer. */
export const cacheWidth = ({ preset }: SequenceModel): number => 2 * preset.layers * preset.dim;

/**
 * Scores of the next codes of `width` partial SIDs per history; keys and values of earlier tokens come from a cache. Inputs:
 * context [rows, M, D], and with a causal history readable [rows, M]. Level 0: start [rows, D] (causal history). From level 1 on:
 * code int32 [rows x width], the newest code of each; cache0 [rows, W] of BOS; cache1.. [rows x width, W] of the codes before.
 * @returns scores [rows x width, V]: log-probabilities over all codes (normalizer codes), or logits of which only those of the
 * trie's children mean something; cache [rows x width, W] unless the level is the last; at level 0 with a contrast at BOS user [rows, D]
 */
export function sequenceStep<T>(
  ops: Ops<T>,
  model: SequenceModel,
  { rows, length, width, level }: { rows: number; length: number; width: number; level: number },
): Record<string, T> {
  const { preset } = model;
  const { dim } = preset;
  const n = rows * width;
  const memory = contextLength(model, length);
  const causal = model.history === 'causal';
  const beginning = embedding(ops, 'decoder.bos', 1, dim);
  const token =
    level > 0
      ? levelRows(ops, model, level - 1, ops.input('code', [n], 'int32'))
      : causal
        ? ops.add(beginning, ops.input('start', [rows, dim], 'float32'))
        : ops.broadcastTo(beginning, [rows, dim]);
  const positions = embedding(ops, 'decoder.position', model.layout.rows.length + 1, dim);
  const h = [
    token,
    ops.slice(positions, [level, 0], [1, dim]),
    embedding(ops, 'decoder.scenario', model.layout.scenarios.length, dim),
  ].reduce((a, b) => ops.add(a, b));
  const caches = Array.from({ length: level }, (_, l) => {
    if (l > 0) return ops.input(`cache${l}`, [n, cacheWidth(model)], 'float32');
    const shared = ops.reshape(ops.input('cache0', [rows, cacheWidth(model)], 'float32'), [
      rows,
      1,
      cacheWidth(model),
    ]);
    return ops.reshape(ops.broadcastTo(shared, [rows, width, cacheWidth(model)]), [n, cacheWidth(model)]);
  });
  const part = (cache: T, i: number): T => ops.slice(cache, [0, i * dim], [n, dim]);
  const { hidden, own } = nextToken(
    ops,
    'decoder',
    h,
    ops.input('context', [rows, memory, dim], 'float32'),
    Array.from({ length: preset.layers }, (_, layer) =>
      caches.map((cache) => ({ key: part(cache, 2 * layer), value: part(cache, 2 * layer + 1) })),
    ),
    preset,
    (name, x) => {
      const present = ops.constant(new Float32Array(n).fill(1), [n, 1]);
      return mixtureOfExperts(ops, name, x, present, {
        ...preset,
        active: preset.activeExperts,
        slots: n,
        precedence: 0,
      }).y;
    },
    causal ? ops.input('readable', [rows, memory], 'float32') : undefined,
  );
  const logits = codeLogits(ops, model, level, hidden);
  return {
    scores: model.normalizer === 'codes' ? ops.logSoftmax(logits) : logits,
    ...(level + 1 < model.layout.rows.length && {
      cache: ops.concat(
        own.flatMap(({ key, value }) => [key, value]),
        1,
      ),
    }),
    ...(level === 0 && model.contrast.at === 'bos' && { user: userVectors(ops, hidden) }),
  };
}
