/**
 * AdamW after clipping by the global gradient norm.
 *
 *   g  = gradient x min(1, maxNorm / norm)         norm over all parameters together
 *   m' = b1 m + (1 - b1) g                          v' = b2 v + (1 - b2) g^2
 *   w' = w (1 - lr rate decay) - lr rate (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t)) + eps)
 *
 * Loshchilov and Hutter 2019, algorithm 2. lr comes in on every step, so warm-up and schedules live outside.
 */
import type { AdamWFactors } from './kernels.ts';

export interface AdamWOptions {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Decoupled weight decay of the parameters that ask for it. */
  weightDecay: number;
  maxGradNorm: number;
}

/**
 * What step t (from 1) multiplies by. Clip factor and corrections are folded into scalars:
 * sqrt(v / c2) + eps = (sqrt(v) + eps sqrt(c2)) / sqrt(c2).
 */
export function adamwFactors(
  { beta1, beta2, epsilon, weightDecay, maxGradNorm }: AdamWOptions,
  step: { t: number; learningRate: number; gradNorm: number },
  parameter: { decay: boolean; rate: number },
): AdamWFactors {
  const learningRate = step.learningRate * parameter.rate;
  const clip = Math.min(1, maxGradNorm / (step.gradNorm + 1e-12));
  const root2 = Math.sqrt(1 - beta2 ** step.t);
  return {
    beta1,
    gain1: (1 - beta1) * clip,
    beta2,
    gain2: (1 - beta2) * clip * clip,
    stepSize: (learningRate * root2) / (1 - beta1 ** step.t),
    smallest: epsilon * root2,
    shrink: parameter.decay ? 1 - learningRate * weightDecay : 1,
  };
}
