/**
 * The OneMall retrieval model (paper, section 3.2): Query-Formers compress three histories, a decoder with sparse experts
 * generates the three codes of a semantic ID, an item tower is contrasted with the decoder.
 *
 * One definition gives the training pass (`retrievalPass`), teacher-forced figures (`evaluationPass`), and the graphs that are
 * published (`userContext`, `nextCode`, `itemVectors`). Per-level tables and heads hold the rows of all scenarios one after
 * the other; a softmax runs over the rows of the sample's scenario only.
 */
import { NUM_AGE_BUCKETS, NUM_ITEM_HASHES, NUM_ITEM_SIDS, type SidLayout } from '@onemall/features';
import { lastOf, linear, norm } from '../layers/attention.ts';
import {
  type DecoderOptions,
  type DecoderResult,
  decoder,
  type TokenBlock,
  tokensIn,
} from '../layers/decoder.ts';
import { keepAll } from '../layers/dropout.ts';
import { contrastiveLoss, dpoLoss, grpoLoss, unitLength } from '../layers/losses.ts';
import { queryFormers } from '../layers/query-former.ts';
import { normal, type Ops } from '../ops.ts';
import { betterChildren, countAbove } from './masked-accuracy.ts';
import type { RetrievalPreset } from './presets.ts';

const LEVELS = [0, 1, 2] as const;
export const NUM_BEHAVIOURS = 3;
/** Small first logits: training starts at the loss of a uniform guess. */
export const HEAD_GAIN = 0.1;

export interface RlSizes {
  form: 'grpo' | 'dpo';
  /** G contexts and m candidates of each. */
  groups: number;
  perGroup: number;
  epsilon: number;
  epsilonHigh: number;
  dpoLambda: number;
}
export type Normalizer = 'codes' | 'trie';
/** Codes of every scenario and level, see `SidLayout`; a tokenizer may have another number of levels. */
export interface TokenLayout {
  scenarios: readonly string[];
  numCodes: Readonly<Record<string, readonly number[]>>;
  offsets: ReadonlyMap<string, readonly number[]>;
  rows: readonly number[];
}
/** What fixes the weights of a model. */
export interface GeneratorSizes {
  preset: RetrievalPreset;
  layout: TokenLayout;
}
/** Everything that fixes the shapes of a graph. */
export interface RetrievalSizes extends GeneratorSizes {
  layout: SidLayout;
  /** B */
  batchSize: number;
  /** H */
  historyLength: number;
  /** Newest events per behaviour that this graph reads, for batches whose histories are no longer. Default H. */
  readLength?: number;
  /** codes: the softmax runs over all codes of the scenario's level; trie: over those that continue an existing SID. Default codes. */
  normalizer?: Normalizer;
  /** Whether a step also counts who is best among the children that samples bring. */
  maskedAccuracy?: boolean;
  /** Absent: a batch without reward groups. */
  rl?: RlSizes;
}

/** Sum of the level embeddings of SIDs. @param rows per level int32 of one shape, negative where absent (row 0 then) @returns [.., D] */
export function sidEmbedding<T>(ops: Ops<T>, sizes: GeneratorSizes, rows: readonly T[]): T {
  return rows.map((ids, level) => levelRows(ops, sizes, level, ids)).reduce((a, b) => ops.add(a, b));
}
/** Embeddings of the codes of one level; row 0 where the id is negative. */
export function levelRows<T>(ops: Ops<T>, { preset, layout }: GeneratorSizes, level: number, ids: T): T {
  const { dim, embeddingGain = 1 } = preset;
  const init = normal(1 / Math.sqrt(dim) / embeddingGain);
  const table = ops.parameter(`sid.level${level + 1}`, [layout.rows[level]!, dim], init, { decay: false });
  const rows = ops.gather(table, ops.clampIds(ids));
  return embeddingGain === 1 ? rows : ops.scale(rows, embeddingGain);
}
export function embedding<T>(ops: Ops<T>, name: string, count: number, dim: number): T {
  return ops.parameter(name, [count, dim], normal(1 / Math.sqrt(dim)), { decay: false });
}

/** Elements of F for one request. */
export const contextRows = ({ preset, historyLength, readLength = historyLength }: RetrievalSizes): number =>
  NUM_BEHAVIOURS * (preset.queries === 0 ? readLength : preset.queries);

/**
 * F = [F_exposure; F_click; F_buy] (paper, equation 3); with no queries the events themselves, of length 0 where padded.
 * Inputs: history.codes1..3, history.ages, history.scenarios, each int32 [3, rows, readLength], newest first, codes -1 where padded.
 * @returns [rows, 3 M, D], without queries [rows, 3 H, D]
 */
export function userContext<T>(ops: Ops<T>, sizes: RetrievalSizes, rows: number): T {
  const { preset, layout, historyLength, readLength: h = historyLength } = sizes;
  const { dim } = preset;
  const shape = [NUM_BEHAVIOURS, rows, h];
  const codes = LEVELS.map((l) => ops.input(`history.codes${l + 1}`, shape, 'int32'));
  const ages = ops.input('history.ages', shape, 'int32');
  const scenarios = ops.input('history.scenarios', shape, 'int32');
  const positions = embedding(ops, 'history.position', historyLength, dim);
  const position = ops.reshape(h < historyLength ? ops.slice(positions, [0, 0], [h, dim]) : positions, [
    1,
    1,
    h,
    dim,
  ]);
  const behaviour = ops.reshape(embedding(ops, 'history.behaviour', NUM_BEHAVIOURS, dim), [
    NUM_BEHAVIOURS,
    1,
    1,
    dim,
  ]);
  const element = [
    sidEmbedding(ops, sizes, codes),
    ops.gather(embedding(ops, 'history.age', NUM_AGE_BUCKETS, dim), ages),
    ops.gather(embedding(ops, 'history.scenario', layout.scenarios.length, dim), scenarios),
    ops.add(position, behaviour),
  ].reduce((a, b) => ops.add(a, b));
  const present = ops.isPresent(codes[0]!);
  const byRequest = (f: T): T => ops.reshape(ops.transpose(f, [1, 0, 2, 3]), [rows, contextRows(sizes), dim]);
  if (preset.queries === 0)
    return byRequest(
      ops.mul(norm(ops, 'history.norm', element), ops.reshape(present, [NUM_BEHAVIOURS, rows, h, 1])),
    );
  const f = queryFormers(ops, 'user', element, present, {
    queries: preset.queries,
    blocks: preset.queryBlocks,
    heads: preset.heads,
    ffnDim: preset.ffnDim,
    absorb: preset.absorb ?? true,
  });
  return byRequest(f);
}

/**
 * f_item = MLP(Flatten(QFormer_item(Q, I, I))) (paper, equation 4), of length 1.
 * Inputs: item.hashes int32 [rows, 7], item.codes1..3 int32 [rows, 5], negative where absent; item.scenario int32 [rows].
 * @returns [rows, D]
 */
export function itemVectors<T>(ops: Ops<T>, sizes: RetrievalSizes, rows: number): T {
  const { preset, layout } = sizes;
  const { dim } = preset;
  const hashes = ops.input('item.hashes', [rows, NUM_ITEM_HASHES], 'int32');
  const codes = LEVELS.map((l) => ops.input(`item.codes${l + 1}`, [rows, NUM_ITEM_SIDS], 'int32'));
  const scenario = ops.input('item.scenario', [rows], 'int32');
  const table = embedding(ops, 'item.hash', preset.itemHashRows, dim);
  const hashed = ops.gather(table, ops.modulo(ops.clampIds(hashes), preset.itemHashRows));
  const features = NUM_ITEM_HASHES + NUM_ITEM_SIDS;
  const field = ops.reshape(embedding(ops, 'item.field', features, dim), [1, features, dim]);
  const kind = ops.gather(embedding(ops, 'item.kind', layout.scenarios.length, dim), scenario);
  const sequence = [
    ops.concat([hashed, sidEmbedding(ops, sizes, codes)], 1),
    field,
    ops.reshape(kind, [rows, 1, dim]),
  ].reduce((a, b) => ops.add(a, b));
  const present = ops.concat([ops.isPresent(hashes), ops.isPresent(codes[0]!)], 1);
  const f = queryFormers(
    ops,
    'item',
    ops.reshape(sequence, [1, rows, features, dim]),
    ops.reshape(present, [1, rows, features]),
    { queries: preset.itemQueries, blocks: preset.queryBlocks, heads: preset.heads, ffnDim: preset.ffnDim },
  );
  const flat = ops.reshape(f, [rows, preset.itemQueries * dim]);
  const inner = ops.silu(linear(ops, 'item.mlp1', flat, 2 * dim));
  return unitLength(ops, linear(ops, 'item.mlp2', inner, dim));
}

/**
 * Runs the decoder over BOS, s1, .. of rows that share contexts block by block.
 * @param scenario int32 [sum of contexts x rows] @param codes per level int32 [same], global rows; one fewer than the most tokens suffices
 * @param present [same] 0 for padding @param start [same, D], added to BOS where there is one @param precedence tokens of the first blocks that experts never drop
 */
export function decode<T>(
  ops: Ops<T>,
  sizes: GeneratorSizes,
  input: { context: T; scenario: T; codes: readonly T[]; present: T; start?: T },
  blocks: readonly TokenBlock[],
  expertSlots: { slots: number; precedence: number },
  options: DecoderOptions<T> = {},
): DecoderResult<T> {
  const { preset, layout } = sizes;
  const { dim } = preset;
  const most = Math.max(...blocks.map((b) => b.tokens));
  const bos = ops.reshape(embedding(ops, 'decoder.bos', 1, dim), [1, 1, dim]);
  const levels = layout.rows.length;
  const positions = embedding(ops, 'decoder.position', levels + 1, dim);
  const scenarios = embedding(ops, 'decoder.scenario', layout.scenarios.length, dim);
  let first = 0;
  const tokens: T[] = [];
  const presence: T[] = [];
  for (const block of blocks) {
    const rows = block.contexts * block.rows;
    const own = (x: T): T => ops.slice(x, [first], [rows]);
    const beginning = ops.broadcastTo(bos, [rows, 1, dim]);
    const parts = [
      input.start === undefined ? beginning : ops.add(beginning, ops.reshape(input.start, [rows, 1, dim])),
      ...input.codes
        .slice(0, block.tokens - 1)
        .map((ids, l) => ops.reshape(levelRows(ops, sizes, l, own(ids)), [rows, 1, dim])),
    ];
    const position = ops.reshape(ops.slice(positions, [0, 0], [block.tokens, dim]), [1, block.tokens, dim]);
    const scenario = ops.reshape(ops.gather(scenarios, own(input.scenario)), [rows, 1, dim]);
    const sequence = [ops.concat(parts, 1), position, scenario].reduce((a, b) => ops.add(a, b));
    tokens.push(ops.reshape(sequence, [tokensIn(block), dim]));
    const exists = ops.broadcastTo(ops.reshape(own(input.present), [rows, 1]), [rows, block.tokens]);
    presence.push(ops.reshape(exists, [tokensIn(block), 1]));
    first += rows;
  }
  if (most > levels + 1)
    throw new Error(`A semantic ID has ${levels} codes after BOS; asked for ${most} tokens`);
  const { drop = keepAll } = options;
  return decoder(
    ops,
    'decoder',
    drop(ops.concat(tokens, 0)),
    input.context,
    ops.concat(presence, 0),
    blocks,
    { ...preset, ...expertSlots },
    options,
  );
}

/** The hidden states at one position of every row: [sum of rows, D]. */
export function atPosition<T>(ops: Ops<T>, hidden: T, blocks: readonly TokenBlock[], position: number): T {
  const dim = lastOf(ops.shape(hidden));
  let begin = 0;
  const parts = blocks.map((block) => {
    const n = tokensIn(block);
    const rows = n / block.tokens;
    const grid = ops.reshape(ops.slice(hidden, [begin, 0], [n, dim]), [rows, block.tokens, dim]);
    begin += n;
    return ops.reshape(ops.slice(grid, [0, position, 0], [rows, 1, dim]), [rows, dim]);
  });
  return ops.concat(parts, 0);
}

/** Scores of a level's codes: [rows, V_level]. */
export function codeLogits<T>(ops: Ops<T>, { layout }: GeneratorSizes, level: number, hidden: T): T {
  return linear(ops, `head.level${level + 1}`, hidden, layout.rows[level]!, HEAD_GAIN);
}

/** Added to the scores of a level: 0 for the codes of the row's scenario, -1e9 for others. [rows, V_level] */
function ownCodes<T>(ops: Ops<T>, { layout }: RetrievalSizes, level: number, scenario: T): T {
  const count = layout.rows[level]!;
  const added = layout.scenarios.flatMap((name) => {
    const from = layout.offsets.get(name)![level]!;
    const to = from + layout.numCodes[name]![level]!;
    return Array.from({ length: count }, (_, row) => (row >= from && row < to ? 0 : -1e9));
  });
  return ops.gather(ops.constant(added, [layout.scenarios.length, count]), scenario);
}

interface TeacherForced<T> {
  /** [N, D] and how it is laid out: reward groups, then samples. */
  hidden: T;
  samples: TokenBlock;
  /** R = G x m rows and their 3 R tokens come before the samples. */
  candidates: number;
  /** Per level [R + B]: log p of the row's own code. */
  logProbs: T[];
  experts: DecoderResult<T>['experts'];
  /**
   * logProb1..3, entropy1..3 [B] of the normalizer. Of all codes whatever the normalizer is: above1..3 [B], how many score above the
   * target; without training predicted1..3 int32 [B], global row of the best. In training with maskedAccuracy better1..3 [B].
   */
  metrics: Record<string, T>;
}

/**
 * Context, decoder and heads over the known codes. Inputs besides the history's, rows being those of the reward groups
 * (R = G x m), then those of the samples (B): row.scenario int32 [R + B], row.codes1..3 int32 [R + B] (global rows),
 * row.present [R + B]; with normalizer trie row.prior1..3 [R + B, V_level], added to the scores: the log weight of a code that
 * continues an existing SID, -1e9 for any other.
 * Histories have G + B rows, groups first.
 */
function teacherForced<T>(ops: Ops<T>, sizes: RetrievalSizes, dropless: boolean): TeacherForced<T> {
  const { preset, batchSize, rl } = sizes;
  const groups = rl?.groups ?? 0;
  const candidates = groups * (rl?.perGroup ?? 0);
  const rows = candidates + batchSize;
  const context = userContext(ops, sizes, groups + batchSize);
  const scenario = ops.input('row.scenario', [rows], 'int32');
  const codes = LEVELS.map((l) => ops.input(`row.codes${l + 1}`, [rows], 'int32'));
  const present = ops.input('row.present', [rows], 'float32');

  const samples: TokenBlock = { contexts: batchSize, rows: 1, tokens: preset.contrastAt === 's3' ? 4 : 3 };
  const blocks = rl ? [{ contexts: groups, rows: rl.perGroup, tokens: 3 }, samples] : [samples];
  const precedence = candidates * 3;
  const tokens = tokensIn(samples) + precedence;
  const slots = dropless ? tokens : Math.max(precedence, expertSlots(preset, tokens));
  const input = { context, scenario, codes, present };
  const { hidden, experts } = decode(ops, sizes, input, blocks, { slots, precedence });

  const metrics: Record<string, T> = {};
  const ofSamples = (x: T): T =>
    ops.stopGradient(candidates === 0 ? x : ops.slice(x, [candidates, 0], [batchSize, -1]));
  const logProbs = LEVELS.map((level) => {
    const scores = codeLogits(ops, sizes, level, atPosition(ops, hidden, blocks, level));
    const shape = [rows, sizes.layout.rows[level]!];
    const isTrie = sizes.normalizer === 'trie';
    const prior = isTrie
      ? ops.input(`row.prior${level + 1}`, shape, 'float32')
      : ownCodes(ops, sizes, level, scenario);
    const all = ops.logSoftmax(ops.add(scores, prior));
    const own = ops.pick(all, codes[level]!);
    const sampled = ofSamples(all);
    const ownOfSamples = ops.slice(own, [candidates], [batchSize]);
    const allCodes = () => ownCodes(ops, sizes, level, ops.slice(scenario, [candidates], [batchSize]));
    const free = isTrie ? ops.add(ofSamples(scores), allCodes()) : sampled;
    if (dropless) metrics[`predicted${level + 1}`] = ops.argmax(free);
    else {
      const target = ops.pick(free, ops.slice(codes[level]!, [candidates], [batchSize]));
      metrics[`above${level + 1}`] = countAbove(ops, free, target);
    }
    metrics[`logProb${level + 1}`] = ownOfSamples;
    metrics[`entropy${level + 1}`] = ops.scale(ops.sum(ops.mul(ops.exp(sampled), sampled), [1]), -1);
    if (sizes.maskedAccuracy && !dropless) {
      const target = ops.stopGradient(ownOfSamples);
      metrics[`better${level + 1}`] = isTrie
        ? countAbove(ops, sampled, target)
        : betterChildren(ops, sizes.layout, level, sampled, target);
    }
    return own;
  });
  return { hidden, samples, candidates, logProbs, experts, metrics };
}

/** Teacher-forced figures without loss or dropped tokens: predicted1..3, logProb1..3, entropy1..3. */
export function evaluationPass<T>(ops: Ops<T>, sizes: RetrievalSizes): Record<string, T> {
  return teacherForced(ops, sizes, true).metrics;
}

export interface RetrievalPass<T> {
  loss: T;
  /**
   * loss, ntp1..3, contrastive, rl: scalars; logProb1..3, entropy1..3, above1..3, better1..3, contrastHits [B];
   * rlLogProb [R]; loads<layer> [E], overflow<layer> [].
   */
  metrics: Record<string, T>;
}

/**
 * The training pass: L = rl.scale x L_RL + L_NTP + L_contrastive. Inputs besides those of `teacherForced` and `itemVectors`:
 * sample.weight [B] (sums to 1), sample.itemKey int32 [B], sample.logQ [B]; with reward groups rl.refLogProb, rl.advantage
 * (grpo), rl.weight [R] and rl.scale [].
 */
export function retrievalPass<T>(ops: Ops<T>, sizes: RetrievalSizes): RetrievalPass<T> {
  const { preset, batchSize, rl } = sizes;
  const { hidden, samples, candidates, logProbs, experts, metrics } = teacherForced(ops, sizes, false);
  const weight = ops.input('sample.weight', [batchSize], 'float32');
  const ntpByLevel = logProbs.map((p) =>
    ops.scale(ops.sum(ops.mul(ops.slice(p, [candidates], [batchSize]), weight), [0]), -1),
  );
  ntpByLevel.forEach((ntp, l) => {
    metrics[`ntp${l + 1}`] = ntp;
  });

  const sampleTokens = ops.slice(hidden, [candidates * 3, 0], [tokensIn(samples), -1]);
  const user = atPosition(ops, sampleTokens, [samples], preset.contrastAt === 's3' ? 3 : 0);
  const contrast = contrastiveLoss(
    ops,
    {
      users: unitLength(ops, linear(ops, 'contrast.user', user, preset.dim)),
      items: itemVectors(ops, sizes, batchSize),
      itemKeys: ops.input('sample.itemKey', [batchSize], 'int32'),
      logQ: ops.input('sample.logQ', [batchSize], 'float32'),
      weights: weight,
    },
    preset.temperature,
  );
  metrics.contrastive = contrast.loss;
  metrics.contrastHits = contrast.hits;

  let loss = ops.add(
    ntpByLevel.reduce((a, b) => ops.add(a, b)),
    contrast.loss,
  );
  if (rl) {
    const sequence = ops.slice(
      logProbs.reduce((a, b) => ops.add(a, b)),
      [0],
      [candidates],
    );
    metrics.rlLogProb = sequence;
    metrics.rl = reinforcementLoss(ops, rl, sequence, candidates);
    loss = ops.add(loss, ops.mul(metrics.rl, ops.input('rl.scale', [], 'float32')));
  }
  experts.forEach((layer, i) => {
    metrics[`loads${i}`] = layer.loads!;
    metrics[`overflow${i}`] = layer.overflow!;
  });
  return { loss, metrics: { loss, ...metrics } };
}

function reinforcementLoss<T>(ops: Ops<T>, rl: RlSizes, logProbs: T, candidates: number): T {
  const refLogProbs = ops.input('rl.refLogProb', [candidates], 'float32');
  const weights = ops.input('rl.weight', [candidates], 'float32');
  if (rl.form === 'dpo')
    return dpoLoss(
      ops,
      { logProbs, refLogProbs, weights },
      { groups: rl.groups, perGroup: rl.perGroup, lambda: rl.dpoLambda },
    );
  const advantages = ops.input('rl.advantage', [candidates], 'float32');
  return grpoLoss(ops, { logProbs, refLogProbs, advantages, weights }, rl);
}

/** C = ceil(capacityFactor x tokens x k / E). */
export function expertSlots(preset: RetrievalPreset, tokens: number): number {
  return Math.min(
    tokens,
    Math.ceil((preset.capacityFactor * tokens * preset.activeExperts) / preset.experts),
  );
}

/**
 * The next code of partial SIDs, for beam search: inputs context [3 M, D], scenario int32 [1], prefix1.. int32 [width] global
 * rows. No expert drops a token here.
 * @returns log-probabilities [width, V_level]
 */
export function nextCode<T>(ops: Ops<T>, sizes: RetrievalSizes, level: number, width: number): T {
  const { preset } = sizes;
  const memory = contextRows(sizes);
  const context = ops.reshape(ops.input('context', [memory, preset.dim], 'float32'), [1, memory, preset.dim]);
  const scenario = ops.broadcastTo(ops.input('scenario', [1], 'int32'), [width]);
  const codes = LEVELS.slice(0, level).map((l) => ops.input(`prefix${l + 1}`, [width], 'int32'));
  const present = ops.constant(new Float32Array(width).fill(1), [width]);
  const block: TokenBlock = { contexts: 1, rows: width, tokens: level + 1 };
  const slots = { slots: tokensIn(block), precedence: 0 };
  const { hidden } = decode(ops, sizes, { context, scenario, codes, present }, [block], slots);
  const scores = codeLogits(ops, sizes, level, atPosition(ops, hidden, [block], level));
  return ops.logSoftmax(ops.add(scores, ownCodes(ops, sizes, level, scenario)));
}
