import type { AdamWOptions } from './optimizers/adamw.ts';
import type { OptimizerOptions } from './trainer-ports.ts';

export interface ResolvedOptimizer {
  learningRate: number;
  warmupSteps: number;
  decaySteps: number | undefined;
  itemTowerRate: number;
  adamw: AdamWOptions;
}

/** Defaults filled in. @throws Error on a value that cannot be meant */
export function resolveOptimizer(options: OptimizerOptions, presetRate: number): ResolvedOptimizer {
  const { learningRate = presetRate, warmupSteps = 100, itemTowerRate = 1 } = options;
  const { weightDecay = 0.01, maxGradNorm = 1, decaySteps } = options;
  if (decaySteps !== undefined && !(Number.isInteger(decaySteps) && decaySteps > warmupSteps))
    throw new Error(
      `optimizer.decaySteps must be a whole number above the ${warmupSteps} steps of the warm-up, got ${decaySteps}`,
    );
  const wanted = { learningRate, maxGradNorm, itemTowerRate };
  for (const [name, value] of Object.entries(wanted))
    if (!(Number.isFinite(value) && value > 0))
      throw new Error(`optimizer.${name} must be a finite number above 0, got ${value}`);
  for (const [name, value] of Object.entries({ weightDecay, warmupSteps }))
    if (!(Number.isFinite(value) && value >= 0))
      throw new Error(`optimizer.${name} must be a finite number of at least 0, got ${value}`);
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay, maxGradNorm };
  return { learningRate, warmupSteps, decaySteps, itemTowerRate, adamw };
}

/** What is left of the learning rate at the end of a decay, and after it. */
const LEAST_RATE = 0.05;

/**
 * Linear warm-up, then constant, as a stream has no end to decay to; or, with `decaySteps`, half a cosine down to 5 %.
 * @param step updates done before this one
 */
export function learningRateAt(
  step: number,
  { learningRate, warmupSteps, decaySteps }: ResolvedOptimizer,
): number {
  if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
  if (decaySteps === undefined) return learningRate;
  const done = Math.min(1, (step - warmupSteps) / (decaySteps - warmupSteps));
  return learningRate * (LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + Math.cos(Math.PI * done)));
}
