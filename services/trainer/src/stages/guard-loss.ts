/** Stops training before bad numbers reach a checkpoint. */

interface LossMean {
  /** Exponential mean of the steps that were no spikes, decay 0.98; null before the first one. */
  mean: number | null;
  /** Steps in the mean. */
  steps: number;
  /** Spikes in a row up to now; absent where there is none. */
  spikes?: number;
}
/** Of the loss itself, with the means of other losses beside it, which checkpoints of before lack. */
export interface LossGuardState extends LossMean {
  contrastive?: LossMean;
  rl?: LossMean;
}
export const freshLossGuard: LossGuardState = { mean: null, steps: 0 };

export interface LossGuardRules {
  /** A loss above this many times its running mean is a spike; 0 switches the check off. */
  spikeFactor: number;
  /** Steps before spikes are looked for: the first losses fall steeply. */
  graceSteps: number;
}

/** A step's losses, see `StepOutcome`. */
interface Measured {
  loss: number;
  contrastive?: number;
  rl?: number;
  gradNorm: number;
}

export class LossGuardError extends Error {
  override name = 'LossGuardError';
}

const DECAY = 0.98;

/**
 * How each loss is judged. A mean below `leastMean` counts as that: losses that are nearly 0 multiply by chance. So many spikes
 * in a row stop training.
 */
const LOSSES = {
  loss: { title: 'loss', leastMean: 1e-3, spikesInARow: 1, advice: 'Lower learningRate' },
  contrastive: { title: 'contrastive loss', leastMean: 1, spikesInARow: 1, advice: 'Lower learningRate' },
  // Its mean is about 0, advantages are about 1 each. One old group, whose candidates have become common since, may stand out
  // by itself; a policy that leaves its reference behind does so in all of them.
  rl: {
    title: 'loss of the reward groups',
    leastMean: 1,
    spikesInARow: 10,
    advice: 'Look at the ranker, lower rlWeight or rlMaxLagSteps',
  },
} as const;

/**
 * The state after a step's losses. Spikes of the loss and of the contrast are looked for in full batches only, and only these make
 * their means: the loss of a partial batch is that of a few samples, down to one, and says nothing about the weights; its contrast has
 * fewer negatives. As a partial batch is repeated from its manifest after a restart, a spike in it would stop training for good. The
 * loss of reward groups counts in every step that has some: the samples beside them have no part in it.
 * @param full the batch held as many samples as a batch can
 * @throws LossGuardError on NaN, infinity or a spike; the caller stops and keeps the last good checkpoint
 */
export function guardLoss(
  state: LossGuardState,
  step: number,
  measured: Measured,
  rules: LossGuardRules,
  full: boolean,
): LossGuardState {
  for (const [name, value] of Object.entries(measured))
    if (!Number.isFinite(value))
      throw new LossGuardError(
        `Step ${step}: ${name} is ${value}, expected a finite number. Training stops; the last checkpoint is kept. Look at the batch in the manifest of this step, lower learningRate or gradClipNorm.`,
      );
  const after = (name: keyof typeof LOSSES, value: number, before: LossMean = freshLossGuard) =>
    meanAfter(before, name, value, step, rules);
  const { loss, contrastive, rl } = measured;
  const { mean, steps, ...others } = state;
  return {
    ...(full ? after('loss', loss, { mean, steps }) : { mean, steps }),
    ...others,
    ...(full &&
      contrastive !== undefined && { contrastive: after('contrastive', contrastive, state.contrastive) }),
    ...(rl !== undefined && { rl: after('rl', rl, state.rl) }),
  };
}

/** @throws LossGuardError */
function meanAfter(
  { mean, steps, spikes = 0 }: LossMean,
  name: keyof typeof LOSSES,
  value: number,
  step: number,
  { spikeFactor, graceSteps }: LossGuardRules,
): LossMean {
  const { title, leastMean, spikesInARow, advice } = LOSSES[name];
  const isJudged = spikeFactor > 0 && mean !== null && steps >= graceSteps;
  if (!isJudged || value <= spikeFactor * Math.max(mean, leastMean))
    return { mean: mean === null ? value : DECAY * mean + (1 - DECAY) * value, steps: steps + 1 };
  if (spikes + 1 < spikesInARow) return { mean, steps, spikes: spikes + 1 };
  const inARow = spikesInARow > 1 ? `, the ${spikesInARow}th time in a row` : '';
  throw new LossGuardError(
    `Step ${step}: ${title} ${value.toFixed(4)} is more than ${spikeFactor} times its running mean ${mean.toFixed(4)}${mean < leastMean ? ` (taken as ${leastMean})` : ''}${inARow}. Training stops; the last checkpoint is kept. ${advice}, or raise lossSpikeFactor if the data changed for good.`,
  );
}

/** Steps in a row without a full batch after which the guard is said to be idle. */
const IDLE_STEPS = 100;

/** Without full batches nobody looks for spikes: that is said once. */
export class IdleGuardNotice {
  #partialInARow = 0;
  #told = false;

  /** @returns whether to say it now, after this step */
  after(full: boolean): boolean {
    this.#partialInARow = full ? 0 : this.#partialInARow + 1;
    if (this.#told || this.#partialInARow < IDLE_STEPS) return false;
    this.#told = true;
    return true;
  }
}
