/**
 * Rolling back from a policy that reinforcement learning has spoilt (model.md, RL): weights, optimizer and offsets become
 * those of the policy in use, reward groups up to now are skipped, and the weight of L_RL begins at 0 and rises.
 */
import type { Progress } from './checkpoint-format.ts';

/** Training has gone back to an older checkpoint; the process ends and the next one goes on from there. */
export class RolledBackError extends Error {
  override name = 'RolledBackError';
}

/**
 * Whether reward groups have entered the weights since those of the policy in use. If none have, next-token training alone made the
 * refused ones: from the same place the same samples would make them again.
 */
export const learnedFromRewards = (
  { lastGroupStep = 0 }: Pick<Progress, 'lastGroupStep'>,
  stepInUse: number | null,
): boolean => lastGroupStep > (stepInUse ?? 0);

/**
 * @param accepted progress of the checkpoint behind the policy in use @param now progress when it was decided
 * @param rewards how far reward-batches were read, and the requests whose groups were used: their rewards are not trusted
 */
export function progressAfterRollback(
  accepted: Progress,
  now: Pick<Progress, 'rollbacks'>,
  rewards: Pick<Progress, 'rewardPositions' | 'usedRequestIds'>,
): Progress {
  return {
    ...accepted,
    ...rewards,
    rollbacks: (now.rollbacks ?? 0) + 1,
    rlRampFrom: accepted.step,
  };
}

/**
 * Share of the weight of L_RL at a step: 0 at the first one after a rollback, 1 after `rampSteps`.
 *
 * rlShare({ rlRampFrom: 100 }, 101, 50) = 0; rlShare({ rlRampFrom: 100 }, 126, 50) = 0.5; rlShare({}, 126, 50) = 1
 */
export function rlShare(
  { rlRampFrom }: Pick<Progress, 'rlRampFrom'>,
  step: number,
  rampSteps: number,
): number {
  if (rlRampFrom === undefined) return 1;
  return Math.min(1, Math.max(0, (step - 1 - rlRampFrom) / rampSteps));
}
