/**
 * Sparse mixture of experts with top-k routing and loss-free balancing (Wang et al. 2024, arXiv 2408.15664), in a static graph.
 *
 * s = softmax(x Wr); the k greatest of s + b are selected; y = sum over the selected of s_i / (sum of the selected s) FFN_i(x).
 * b takes part in the choice only. After each step b_e += u sign(mean(c) - c_e), c = tokens per expert.
 *
 * Static shapes want a fixed number of slots per expert. Tokens are moved into slots and back by gathers in both directions
 * (forward and gradient), so nothing is ever added by several threads. Pairs of a token and an expert beyond the slots are
 * dropped and counted. The tokens that come first in x have precedence; with at least as many slots as such tokens they are
 * never dropped, which keeps the log-probabilities of reinforcement learning exact.
 */
import { normal, type Ops, zeros } from '../ops.ts';

export interface ExpertSizes {
  experts: number;
  active: number;
  ffnDim: number;
  /** Slots per expert; number of tokens or more: every expert is computed for every token and nothing is dropped. */
  slots: number;
  balanceRate: number;
  /** Tokens at the beginning of x that take slots before the others. */
  precedence: number;
}

export interface ExpertsResult<T> {
  /** [N, D] */
  y: T;
  /** [N, E] softmax of the router; absent for a dense network. */
  scores?: T;
  /** [E] pairs routed, before dropping; absent for a dense network. */
  loads?: T;
  /** [] pairs dropped. */
  overflow?: T;
}

/** @param x [N, D] @param present [N, 1], 0 for padding: neither computed nor counted */
export function mixtureOfExperts<T>(
  ops: Ops<T>,
  name: string,
  x: T,
  present: T,
  sizes: ExpertSizes,
): ExpertsResult<T> {
  const [n, dim] = ops.shape(x) as [number, number];
  const { experts, active, ffnDim, slots, balanceRate } = sizes;
  const weights = {
    up: ops.parameter(`${name}.up`, [experts, dim, ffnDim], normal(1 / Math.sqrt(dim))),
    down: ops.parameter(`${name}.down`, [experts, ffnDim, dim], normal(1 / Math.sqrt(ffnDim))),
  };
  /** [E, C, D] -> [E, C, D] */
  const feedForward = (tokens: T): T => ops.matmul(ops.silu(ops.matmul(tokens, weights.up)), weights.down);
  if (experts === 1) return { y: ops.reshape(feedForward(ops.reshape(x, [1, n, dim])), [n, dim]) };

  const scores = ops.softmax(
    ops.matmul(x, ops.parameter(`${name}.router`, [dim, experts], normal(1 / Math.sqrt(dim)))),
  );
  const bias = ops.buffer(`${name}.bias`, [experts], zeros);
  const chosen = ops
    .topKOneHot(ops.add(ops.stopGradient(scores), bias), active)
    .map((oneHot) => ops.mul(oneHot, present));
  const gates = chosen.map((oneHot) => ops.sum(ops.mul(scores, oneHot), [1], true));
  // A padded token has no gate at all: its sum must not be divided by zero.
  const absent = ops.addScalar(ops.scale(present, -1), 1);
  const total = ops.add(
    gates.reduce((a, b) => ops.add(a, b)),
    absent,
  );
  const shares = gates.map((gate) => ops.div(gate, total));

  const loads = ops.sum(
    chosen.reduce((a, b) => ops.add(a, b)),
    [0],
  );
  const mean = ops.scale(ops.sum(loads, [0], true), 1 / experts);
  ops.assign(`${name}.bias`, ops.add(bias, ops.scale(ops.sign(ops.sub(mean, loads)), balanceRate)));

  if (slots >= n) {
    const every = feedForward(ops.broadcastTo(ops.reshape(x, [1, n, dim]), [experts, n, dim]));
    const byExpert = shares.map((share, k) => ops.mul(chosen[k]!, share)).reduce((a, b) => ops.add(a, b));
    const gate = ops.reshape(ops.transpose(byExpert, [1, 0]), [experts, n, 1]);
    return { y: ops.sum(ops.mul(every, gate), [0]), scores, loads, overflow: ops.constant([0], []) };
  }
  const route = assignSlots(ops, chosen, sizes, n);
  const moved = ops.permuteRows(x, route.tokenOfSlot, route.slotOfToken);
  const computed = ops.reshape(feedForward(ops.reshape(moved, [experts, slots, dim])), [
    experts * slots,
    dim,
  ]);
  const returned = ops.permuteRows(computed, ops.concat(route.slotOfToken, 0), [route.choiceOfSlot]);
  const y = shares
    .map((share, k) => ops.mul(ops.slice(returned, [k * n, 0], [n, dim]), share))
    .reduce((a, b) => ops.add(a, b));
  return { y, scores, loads, overflow: route.overflow };
}

interface Route<T> {
  /** [E x C] token (from 1) in each slot, 0 where empty. */
  tokenOfSlot: T;
  /** Per choice k: [N] slot (from 1) of each token, 0 where dropped or padded. */
  slotOfToken: T[];
  /** [E x C] place (from 1) in the list of all tokens' first choices, then all second choices, and so on. */
  choiceOfSlot: T;
  overflow: T;
}

/** Gives slots in order: first and second choices of the tokens with precedence, then those of the rest. */
function assignSlots<T>(ops: Ops<T>, chosen: readonly T[], sizes: ExpertSizes, n: number): Route<T> {
  const { experts, slots, active, precedence } = sizes;
  const spans = [
    { begin: 0, size: precedence },
    { begin: precedence, size: n - precedence },
  ].filter((span) => span.size > 0);
  const pairs = spans.flatMap(({ begin, size }) =>
    chosen.map((oneHot, choice) => ({ begin, size, choice, oneHot })),
  );
  const oneHots = ops.concat(
    pairs.map(({ begin, size, oneHot }) => ops.slice(oneHot, [begin, 0], [size, experts])),
    0,
  );
  const expert = ops.sum(
    ops.mul(
      oneHots,
      ops.constant(
        Array.from({ length: experts }, (_, e) => e),
        [experts],
      ),
    ),
    [1],
  );
  const place = ops.sum(ops.mul(ops.cumsumExclusive(oneHots), oneHots), [1]);
  const routed = ops.sum(oneHots, [1]);
  const kept = ops.mul(ops.less(place, ops.constant([slots], [])), routed);
  const slot = ops.toInt(ops.mul(ops.addScalar(ops.add(ops.scale(expert, slots), place), 1), kept));

  const pairOfSlot = ops.invertSlots(slot, experts * slots);
  const tokenOfPair = pairs.flatMap(({ begin, size }) =>
    Array.from({ length: size }, (_, i) => begin + i + 1),
  );
  const choiceOfPair = pairs.flatMap(({ begin, size, choice }) =>
    Array.from({ length: size }, (_, i) => choice * n + begin + i + 1),
  );
  const total = n * active;
  const look = (table: readonly number[]): T =>
    ops.reshape(ops.gather(ops.constantInt([0, ...table], [total + 1, 1]), pairOfSlot), [experts * slots]);

  let at = 0;
  const ranges = pairs.map((pair) => {
    const begin = at;
    at += pair.size;
    return { ...pair, part: ops.slice(slot, [begin], [pair.size]) };
  });
  const slotOfToken = chosen.map((_, k) =>
    ops.concat(
      ranges.filter((r) => r.choice === k).map((r) => r.part),
      0,
    ),
  );
  return {
    tokenOfSlot: look(tokenOfPair),
    slotOfToken,
    choiceOfSlot: look(choiceOfPair),
    overflow: ops.sub(ops.sum(routed, [0]), ops.sum(kept, [0])),
  };
}
