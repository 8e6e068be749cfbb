/** What other workspaces take from here: the frozen world as benchmarks read it. */
export { readEvaluationPlan } from './log/plan.ts';
export { WorldLog } from './log/world-log.ts';
export { ItemVectors } from './samples/semantic-ids.ts';
