/** One group from rollout to reward batch: which rows the ranker gets, and what its answers make of the candidates. */
import type { RewardBatch, Rollout, ScoredCandidate } from '@onemall/contracts';
import { NUM_DENSE, NUM_IDS, type RankerItem, RankerRequest } from '@onemall/features';
import { fuseReward, groupAdvantages, type RankerScores, type RewardWeights } from '@onemall/learning';
import { keepDistinct, type RankedCandidate } from './keep-distinct.ts';

/** An item or room as of a moment; null where it is not known at all. */
export type ItemAsOf = (itemId: string, timeMs: number) => RankerItem | null;

export interface RankerRows {
  rollout: Rollout;
  candidates: RankedCandidate[];
  /** Row of each candidate among this group's rows; -1 where the candidate has no known item. */
  rowOf: number[];
  numRows: number;
  /** float32 [numRows, NUM_DENSE] */
  dense: Float32Array;
  /** int32 [numRows, NUM_IDS] */
  ids: Int32Array;
}

/** Features of the distinct candidates, computed exactly as those of logged targets in training. */
export function rankerRows(rollout: Rollout, itemAsOf: ItemAsOf): RankerRows {
  const candidates = keepDistinct(rollout.candidates);
  const known = candidates.map(({ itemId }) =>
    itemId === null ? null : itemAsOf(itemId, rollout.requestTimeMs),
  );
  const numRows = known.filter((k) => k !== null).length;
  const dense = new Float32Array(numRows * NUM_DENSE);
  const ids = new Int32Array(numRows * NUM_IDS);
  const request = new RankerRequest(rollout);
  let row = 0;
  const rowOf = candidates.map(({ itemId }, i) => {
    const item = known[i];
    if (!item) return -1;
    request.write(itemId!, item, dense, ids, row);
    return row++;
  });
  return { rollout, candidates, rowOf, numRows, dense, ids };
}

export interface RankerIdentity {
  rankerVersion: string;
  /** S by scenario. */
  egpmScale: Readonly<Record<string, number>>;
}

export type GroupSkipped = 'empty' | 'no_items' | 'unknown_scenario' | 'equal_rewards' | 'not_finite';
export type GroupResult =
  | { batch: RewardBatch; withoutItem: number; duplicates: number }
  | { skipped: GroupSkipped };

/** A SID without an item has no predictions and takes the lowest reward of its group. */
const NO_ITEM = { pCtr: 0, pCtcvr: 0, pEgpm: 0, reward: Number.NaN };

/**
 * The reward batch of a group. A SID without an item gets the lowest reward of the group, so that the policy learns to
 * avoid it, and its predictions are 0.
 * @param scores answers of the ranker; those of this group begin at row `from`
 */
export function scoreGroup(
  { rollout, candidates, rowOf, numRows }: RankerRows,
  scores: RankerScores,
  from: number,
  ranker: RankerIdentity,
  options: { weights: RewardWeights; maxAdvantage: number; createdMs: number },
): GroupResult {
  if (candidates.length === 0) return { skipped: 'empty' };
  if (numRows === 0) return { skipped: 'no_items' };
  const egpmScale = ranker.egpmScale[rollout.scenario];
  if (egpmScale === undefined || !(egpmScale > 0)) return { skipped: 'unknown_scenario' };

  const { pCtr, pCtcvr, buyValueCents } = scores;
  const scored = rowOf.map((row) => {
    if (row < 0) return NO_ITEM;
    const at = from + row;
    const prediction = { pCtr: pCtr[at]!, pCtcvr: pCtcvr[at]!, buyValueCents: buyValueCents[at]! };
    const { pEgpm, reward } = fuseReward(prediction, options.weights, egpmScale);
    return { pCtr: prediction.pCtr, pCtcvr: prediction.pCtcvr, pEgpm, reward };
  });
  let lowest = Number.POSITIVE_INFINITY;
  for (const own of scored) {
    if (own === NO_ITEM) continue;
    if (!Number.isFinite(own.reward)) return { skipped: 'not_finite' };
    lowest = Math.min(lowest, own.reward);
  }
  const rewards = scored.map((own) => (own === NO_ITEM ? lowest : own.reward));
  const group = groupAdvantages(rewards, options.maxAdvantage);
  if (!group) return { skipped: 'equal_rewards' };

  const { requestId, userId, scenario, requestTimeMs, policyVersion, codebookVersion, history } = rollout;
  return {
    withoutItem: candidates.length - numRows,
    duplicates: rollout.candidates.length - candidates.length,
    batch: {
      requestId,
      userId,
      scenario,
      requestTimeMs,
      policyVersion,
      codebookVersion,
      rankerVersion: ranker.rankerVersion,
      history,
      candidates: candidates.map(
        ({ c1, c2, c3, tokenLogProbs, itemId, rank }, i): ScoredCandidate => ({
          c1,
          c2,
          c3,
          tokenLogProbs,
          itemId,
          rank,
          pCtr: scored[i]!.pCtr,
          pCtcvr: scored[i]!.pCtcvr,
          pEgpm: scored[i]!.pEgpm,
          reward: rewards[i]!,
          advantage: group.advantages[i]!,
        }),
      ),
      rewardMean: group.mean,
      rewardStd: group.std,
      rolloutCreatedMs: rollout.createdMs,
      createdMs: options.createdMs,
    },
  };
}
