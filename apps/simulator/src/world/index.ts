/** The world without its service: for the evaluation, which reads its truth. */

export { IN_ORDER } from './disorder.ts';
export { type ScenarioName, tasteDrawChance } from './logging-policy.ts';
export { Oracle, type Truths } from './oracle.ts';
export { parseWorld, type WorldOptions, type WorldSpec, worldHash } from './spec.ts';
export type { TrueScore } from './truth.ts';
export { type RequestTruth, requestFeatures, World, type WorldRecord } from './world.ts';
