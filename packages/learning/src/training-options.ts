import type { AdamWOptions } from './optimizers/adamw.ts';
import type { OptimizerOptions } from './trainer-ports.ts';

export interface ResolvedOptimizer {
  learningRate: number;
  warmupSteps: number;
  itemTowerRate: number;
  adamw: AdamWOptions;
}

/** Defaults filled in. @throws Error on a value that cannot be meant */
export function resolveOptimizer(options: OptimizerOptions, presetRate: number): ResolvedOptimizer {
  const { learningRate = presetRate, warmupSteps = 100, itemTowerRate = 1 } = options;
  const { weightDecay = 0.01, maxGradNorm = 1 } = options;
  const wanted = { learningRate, maxGradNorm, itemTowerRate };
  for (const [name, value] of Object.entries(wanted))
    if (!(Number.isFinite(value) && value > 0))
      throw new Error(`optimizer.${name} must be a finite number above 0, got ${value}`);
  for (const [name, value] of Object.entries({ weightDecay, warmupSteps }))
    if (!(Number.isFinite(value) && value >= 0))
      throw new Error(`optimizer.${name} must be a finite number of at least 0, got ${value}`);
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay, maxGradNorm };
  return { learningRate, warmupSteps, itemTowerRate, adamw };
}

/** Linear warm-up, then constant: a stream has no end to decay to. @param step updates done before this one */
export function learningRateAt(step: number, { learningRate, warmupSteps }: ResolvedOptimizer): number {
  return step >= warmupSteps ? learningRate : (learningRate * (step + 1)) / warmupSteps;
}
