/** Rewards that differ less teach nothing. */
export const MIN_REWARD_STD = 1e-6;

export interface GroupAdvantages {
  mean: number;
  /** Population standard deviation (divided by n). */
  std: number;
  advantages: number[];
}

/**
 * A_i = (r_i - mean r) / std r (OneMall, section 3.3), clamped to +-maxAdvantage; null where std r < MIN_REWARD_STD.
 *
 * groupAdvantages([1, 3], 5) = { mean: 2, std: 1, advantages: [-1, 1] }
 */
export function groupAdvantages(rewards: readonly number[], maxAdvantage: number): GroupAdvantages | null {
  const n = rewards.length;
  if (n === 0) return null;
  const mean = rewards.reduce((sum, r) => sum + r, 0) / n;
  // two passes: the textbook difference of squares loses everything where rewards are nearly equal
  const std = Math.sqrt(rewards.reduce((sum, r) => sum + (r - mean) ** 2, 0) / n);
  if (!(std >= MIN_REWARD_STD)) return null;
  const clamp = (a: number): number => Math.max(-maxAdvantage, Math.min(maxAdvantage, a));
  return { mean, std, advantages: rewards.map((r) => clamp((r - mean) / std)) };
}
