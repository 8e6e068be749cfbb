import type { Ops } from '../ops.ts';
import { forbid } from './attention.ts';

/** x / |x| over the last axis. */
export function unitLength<T>(ops: Ops<T>, x: T): T {
  return ops.mul(x, ops.rsqrt(ops.addScalar(ops.sum(ops.mul(x, x), [-1], true), 1e-12)));
}

export interface ContrastInputs<T> {
  /** [B, D] and [B, D], of length 1. */
  users: T;
  items: T;
  /** int32 [B]: equal for equal items. */
  itemKeys: T;
  /** [B] log of how often the item comes up as a target; frequent items are otherwise punished as negatives. */
  logQ: T;
  /** [B], 0 for padding; sums to 1. */
  weights: T;
}

/**
 * In-batch InfoNCE (paper, equation 7): every other item of the batch is a negative, with log-q correction (Yi et al. 2019,
 * equation 6). Other rows with the positive's own item, and padding, are no negatives.
 * @returns scalar loss and [B] 1 where the own item wins
 */
export function contrastiveLoss<T>(
  ops: Ops<T>,
  { users, items, itemKeys, logQ, weights }: ContrastInputs<T>,
  temperature: number,
): { loss: T; hits: T } {
  const batch = ops.shape(users)[0]!;
  const diagonal = ops.constant(
    Array.from({ length: batch * batch }, (_, i) => (i % (batch + 1) === 0 ? 1 : 0)),
    [batch, batch],
  );
  const sameItem = ops.equal(ops.reshape(itemKeys, [batch, 1]), ops.reshape(itemKeys, [1, batch]));
  const differs = ops.addScalar(ops.scale(sameItem, -1), 1);
  const exists = ops.reshape(ops.less(ops.constant([0], []), weights), [1, batch]);
  const allowed = ops.add(diagonal, ops.mul(differs, exists));
  // A padding row may be its own negative's place as well as its positive; clip the mask to 1.
  const mask = ops.minimum(allowed, ops.constant([1], []));
  const similarity = ops.scale(ops.matmul(users, items, false, true), 1 / temperature);
  const logits = ops.add(ops.sub(similarity, ops.reshape(logQ, [1, batch])), forbid(ops, mask));
  const counting = ops.constantInt(
    Array.from({ length: batch }, (_, i) => i),
    [batch],
  );
  const own = ops.pick(ops.logSoftmax(logits), counting);
  return {
    loss: ops.scale(ops.sum(ops.mul(own, weights), [0]), -1),
    hits: ops.equal(ops.argmax(logits), counting),
  };
}

/** Bound of log rho before exp. */
export const MAX_LOG_RATIO = 10;

/**
 * GRPO (paper, equation 10, in its standard form): -sum_i w_i min(rho_i A_i, clip(rho_i, 1 - eps, 1 + epsHigh) A_i),
 * rho = pi(o) / pi_ref(o), log rho clamped to +-10.
 * @param logProbs, refLogProbs, advantages, weights [R]; weights hold 1 / m and the normalizer, 0 for padding
 */
export function grpoLoss<T>(
  ops: Ops<T>,
  input: { logProbs: T; refLogProbs: T; advantages: T; weights: T },
  { epsilon, epsilonHigh }: { epsilon: number; epsilonHigh: number },
): T {
  const logRatio = ops.clip(ops.sub(input.logProbs, input.refLogProbs), -MAX_LOG_RATIO, MAX_LOG_RATIO);
  const ratio = ops.exp(logRatio);
  const surrogate = ops.minimum(
    ops.mul(ratio, input.advantages),
    ops.mul(ops.clip(ratio, 1 - epsilon, 1 + epsilonHigh), input.advantages),
  );
  return ops.scale(ops.sum(ops.mul(surrogate, input.weights), [0]), -1);
}

/**
 * DPO (paper, equation 9 with the log): -sum w log sigmoid(lambda [log pi/ref (o+) - log pi/ref (o-)]), candidate 0 of each
 * group being o+, every other one an o-.
 * @param logProbs, refLogProbs, weights [G x m]; the weight of candidate 0 is not read
 */
export function dpoLoss<T>(
  ops: Ops<T>,
  input: { logProbs: T; refLogProbs: T; weights: T },
  { groups, perGroup, lambda }: { groups: number; perGroup: number; lambda: number },
): T {
  const grid = (x: T): T => ops.reshape(x, [groups, perGroup]);
  const logRatio = grid(ops.sub(input.logProbs, input.refLogProbs));
  const positive = ops.slice(logRatio, [0, 0], [groups, 1]);
  const negative = ops.slice(logRatio, [0, 1], [groups, perGroup - 1]);
  const margin = ops.scale(ops.sub(positive, negative), lambda);
  const weights = ops.slice(grid(input.weights), [0, 1], [groups, perGroup - 1]);
  return ops.sum(ops.mul(ops.softplus(ops.scale(margin, -1)), weights), [0, 1]);
}
