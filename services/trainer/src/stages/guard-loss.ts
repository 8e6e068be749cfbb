/** Stops training before bad numbers reach a checkpoint. */

export interface LossGuardState {
  /** Exponential mean of the loss of full batches, decay 0.98; null before the first one. */
  mean: number | null;
  /** Steps with a full batch. */
  steps: number;
}
export const freshLossGuard: LossGuardState = { mean: null, steps: 0 };

export interface LossGuardRules {
  /** A loss above this many times its running mean is a spike; 0 switches the check off. */
  spikeFactor: number;
  /** Steps before spikes are looked for: the first losses fall steeply. */
  graceSteps: number;
}

export class LossGuardError extends Error {
  override name = 'LossGuardError';
}

const DECAY = 0.98;

/**
 * The state after a step's loss. Spikes are looked for in full batches only, and only these make the mean: the loss of a
 * partial batch is that of a few samples, down to one, and says nothing about the weights. As a partial batch is repeated
 * from its manifest after a restart, a spike in it would stop training for good.
 * @param full the batch held as many samples as a batch can
 * @throws LossGuardError on NaN, infinity or a spike; the caller stops and keeps the last good checkpoint
 */
export function guardLoss(
  state: LossGuardState,
  step: number,
  measured: { loss: number; gradNorm: number },
  rules: LossGuardRules,
  full: boolean,
): LossGuardState {
  for (const [name, value] of Object.entries(measured))
    if (!Number.isFinite(value))
      throw new LossGuardError(
        `Step ${step}: ${name} is ${value}, expected a finite number. Training stops; the last checkpoint is kept. Look at the batch in the manifest of this step, lower learningRate or gradClipNorm.`,
      );
  if (!full) return state;
  const { loss } = measured;
  if (
    rules.spikeFactor > 0 &&
    state.mean !== null &&
    state.steps >= rules.graceSteps &&
    loss > rules.spikeFactor * Math.max(state.mean, 1e-3)
  )
    throw new LossGuardError(
      `Step ${step}: loss ${loss.toFixed(4)} is more than ${rules.spikeFactor} times its running mean ${state.mean.toFixed(4)}. Training stops; the last checkpoint is kept. Lower learningRate, or raise lossSpikeFactor if the data changed for good.`,
    );
  return {
    mean: state.mean === null ? loss : DECAY * state.mean + (1 - DECAY) * loss,
    steps: state.steps + 1,
  };
}
