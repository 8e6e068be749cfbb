/** Which reward groups enter a step, and which 16 of a group's candidates (model.md, RL). */
import type { RewardBatch, ScoredCandidate } from '@onemall/contracts';
import { belowMedian, MIN_REWARD_STD, selectDpoCandidates, selectGrpoCandidates } from '@onemall/learning';
import { hashFraction, SeededRandom } from '@onemall/service-kit';
import type { GroupPlace } from './manifest.ts';

export interface WaitingGroup extends GroupPlace {
  group: RewardBatch;
}

export type GroupDropped =
  | 'unknown_scenario'
  | 'other_codebook_version'
  | 'policy_too_old'
  | 'policy_of_the_future'
  | 'equal_rewards'
  | 'too_few_candidates'
  | 'none_below_median';

export interface GroupRules {
  codebookVersions: Readonly<Record<string, number>>;
  numCodes: Readonly<Record<string, readonly [number, number, number]>>;
  /** A group whose policy is more steps behind is dropped. */
  maxLagSteps: number;
  /** How groups enter the loss: DPO needs candidates below the median. */
  form: 'grpo' | 'dpo';
}

/** Step of a policyVersion `<step>-<hash>`; NaN if it has another form. */
export const stepOfPolicy = (policyVersion: string): number =>
  /^\d+-/.test(policyVersion) ? Number.parseInt(policyVersion, 10) : Number.NaN;

/** null if the group may train step `step`. */
export function dropsGroup(group: RewardBatch, rules: GroupRules, step: number): GroupDropped | null {
  const version = rules.codebookVersions[group.scenario];
  if (version === undefined) return 'unknown_scenario';
  if (group.codebookVersion !== version) return 'other_codebook_version';
  const lagSteps = step - stepOfPolicy(group.policyVersion);
  // NaN, a policy that this trainer never named, counts as too old.
  if (!(lagSteps <= rules.maxLagSteps)) return 'policy_too_old';
  // After a fall back to an older checkpoint: the weights that made it are gone.
  if (lagSteps < 0) return 'policy_of_the_future';
  if (!(group.rewardStd >= MIN_REWARD_STD)) return 'equal_rewards';
  const usable = usableCandidates(group, rules);
  if (usable.length < 2) return 'too_few_candidates';
  // Where most candidates share the lowest reward (no item behind their SIDs) the median is that reward.
  return rules.form === 'dpo' && belowMedian(usable).length === 0 ? 'none_below_median' : null;
}

/** A finite advantage and codes inside the codebook: anything else would poison the step. */
function usableCandidates(group: RewardBatch, rules: GroupRules): ScoredCandidate[] {
  const k = rules.numCodes[group.scenario]!;
  return group.candidates.filter(
    (c) =>
      c.c1 >= 0 &&
      c.c2 >= 0 &&
      c.c3 >= 0 &&
      c.c1 < k[0] &&
      c.c2 < k[1] &&
      c.c3 < k[2] &&
      Number.isFinite(c.advantage) &&
      c.tokenLogProbs.length === 3 &&
      c.tokenLogProbs.every(Number.isFinite),
  );
}

/**
 * How many groups the next step takes: a burst is spread over `spreadSteps` steps, none is kept for ever.
 *
 * groupsForStep(20, 4, 8) = 3; groupsForStep(1, 4, 8) = 1; groupsForStep(0, 4, 8) = 0
 */
export const groupsForStep = (waiting: number, maxPerStep: number, spreadSteps: number): number =>
  Math.min(maxPerStep, Math.ceil(waiting / spreadSteps));

/** By creation, then place: the order in which waiting groups train does not depend on how fetches arrived. */
export const byCreation = (a: WaitingGroup, b: WaitingGroup): number =>
  a.group.createdMs - b.group.createdMs || a.partition - b.partition || a.offset - b.offset;

/** Candidates of a group that enter the loss (model.md, RL): 16 for GRPO; the best and four others for DPO. */
const GRPO_CANDIDATES = 16;
const DPO_NEGATIVES = 4;

/**
 * The candidates of a group that train: for GRPO half from the top 50 of the beam and half from the rest, for DPO the best
 * first and then some from below the median. The draw depends on the request and the seed only.
 */
export function drawCandidates(group: RewardBatch, rules: GroupRules, seed: number): ScoredCandidate[] {
  const random = new SeededRandom(Math.floor(hashFraction(group.requestId, seed) * 4_294_967_296));
  const usable = usableCandidates(group, rules).sort((a, b) => a.rank - b.rank);
  return rules.form === 'grpo'
    ? selectGrpoCandidates(usable, random, GRPO_CANDIDATES)
    : selectDpoCandidates(usable, random, DPO_NEGATIVES);
}
