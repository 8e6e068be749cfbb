/** What the ranker predicts for one candidate. */
export interface Prediction {
  /** P(click). */
  pCtr: number;
  /** P(click and buy within the window). */
  pCtcvr: number;
  /** Expected paid value given a buy, minor units. */
  buyValueCents: number;
}

export interface RewardWeights {
  alpha: number;
  beta: number;
  gamma: number;
}

/**
 * r = alpha pCtr + beta pCtcvr + gamma pEgpm (OneMall, equation 8), where pEgpm = pCtcvr x E[value | buy] / S.
 * @param egpmScale S of the scenario, fixed with the ranker's version: rewards compare only within one S
 */
export function fuseReward(
  { pCtr, pCtcvr, buyValueCents }: Prediction,
  weights: RewardWeights,
  egpmScale: number,
): { pEgpm: number; reward: number } {
  const pEgpm = (pCtcvr * buyValueCents) / egpmScale;
  return { pEgpm, reward: weights.alpha * pCtr + weights.beta * pCtcvr + weights.gamma * pEgpm };
}
