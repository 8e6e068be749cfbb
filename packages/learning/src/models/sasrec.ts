/**
 * SASRec (Kang and McAuley 2018), the dense baseline: a causal transformer over item embeddings whose output meets the
 * embedding of the next item. Trained at all positions of a history with cross-entropy over shared uniform negatives
 * (Klenitskiy and Vasilev 2023: the loss decides how good SASRec is).
 */
import { forbid, norm } from '../layers/attention.ts';
import { causalEncoder, packedCausalMask } from '../layers/causal-encoder.ts';
import { type Dropout, dropout, keepAll } from '../layers/dropout.ts';
import { normal, type Ops } from '../ops.ts';

export interface SasrecSizes {
  /** Items are numbered from 1; row 0 of the table is padding. */
  numItems: number;
  dim: number;
  layers: number;
  heads: number;
  ffnDim: number;
  dropout: number;
  /** Longest history, in items. */
  maxLength: number;
}

const INITIAL_STD = 0.02;

function itemTable<T>(ops: Ops<T>, { numItems, dim }: SasrecSizes): T {
  return ops.parameter(SASREC_ITEMS, [numItems + 1, dim], normal(INITIAL_STD), { decay: false });
}
/** Name of the item embeddings, float32 [numItems + 1, dim]. */
export const SASREC_ITEMS = 'item.table';

/**
 * Inputs: items, positions (from the oldest, 0), segments, int32 [rows, length].
 * @returns [rows x length, D]
 */
function encode<T>(ops: Ops<T>, sizes: SasrecSizes, rows: number, length: number, drop: Dropout<T>): T {
  const { dim } = sizes;
  const items = ops.input('items', [rows, length], 'int32');
  const positions = ops.input('positions', [rows, length], 'int32');
  const segments = ops.input('segments', [rows, length], 'int32');
  const table = ops.parameter('position.table', [sizes.maxLength, dim], normal(INITIAL_STD), {
    decay: false,
  });
  const x = ops.add(
    ops.scale(ops.gather(itemTable(ops, sizes), items), Math.sqrt(dim)),
    ops.gather(table, positions),
  );
  const h = causalEncoder(ops, 'encoder', drop(x), packedCausalMask(ops, segments), sizes, drop);
  return norm(ops, 'norm', ops.reshape(h, [rows * length, dim]));
}

/**
 * Inputs besides those of `encode`: targets int32 [N], weights [N] (0 for padding, sums to 1), negatives int32 [K], N = rows x length.
 * Loss = -sum w log (exp(h y) / (exp(h y) + (numItems - 1) / K x sum over the negatives other than y of exp(h n))).
 */
export function sasrecPass<T>(
  ops: Ops<T>,
  sizes: SasrecSizes,
  { rows, length, negatives }: { rows: number; length: number; negatives: number },
): { loss: T; metrics: Record<string, T> } {
  const n = rows * length;
  const h = encode(ops, sizes, rows, length, dropout(ops, sizes.dropout));
  const targets = ops.input('targets', [n], 'int32');
  const weights = ops.input('weights', [n], 'float32');
  const drawn = ops.input('negatives', [negatives], 'int32');
  const own = ops.sum(ops.mul(h, ops.gather(itemTable(ops, sizes), targets)), [1], true);
  const same = ops.equal(ops.reshape(targets, [n, 1]), ops.reshape(drawn, [1, negatives]));
  const others = ops.addScalar(
    ops.add(
      ops.matmul(h, ops.gather(itemTable(ops, sizes), drawn), false, true),
      forbid(ops, ops.addScalar(ops.scale(same, -1), 1)),
    ),
    Math.log((sizes.numItems - 1) / negatives),
  );
  const logProbs = ops.logSoftmax(ops.concat([own, others], 1));
  const ofTarget = ops.reshape(ops.slice(logProbs, [0, 0], [n, 1]), [n]);
  const loss = ops.scale(ops.sum(ops.mul(ofTarget, weights), [0]), -1);
  return { loss, metrics: { loss } };
}

/** Hidden states of every element, inputs as of `encode`: hidden [rows x length, D]. */
export function sasrecHidden<T>(
  ops: Ops<T>,
  sizes: SasrecSizes,
  rows: number,
  length: number,
): Record<string, T> {
  return { hidden: encode(ops, sizes, rows, length, keepAll) };
}

/**
 * Scores of all items: input hidden [rows, D], output scores [rows, numItems], column i being item i + 1: products, or
 * probabilities where `normalized`.
 */
export function sasrecScores<T>(
  ops: Ops<T>,
  sizes: SasrecSizes,
  rows: number,
  normalized: boolean,
): Record<string, T> {
  const hidden = ops.input('hidden', [rows, sizes.dim], 'float32');
  const table = ops.slice(itemTable(ops, sizes), [1, 0], [sizes.numItems, sizes.dim]);
  const scores = ops.matmul(hidden, table, false, true);
  return { scores: normalized ? ops.softmax(scores) : scores };
}
