export { type CodeMatch, forkState, matchedShares } from './fork-state.ts';
export * from './models/presets.ts';
export * from './policy-ports.ts';
export { auc } from './prediction-window.ts';
export { type LoadOptions, loadItemTower, loadRanker } from './published.ts';
export { loadPolicy } from './published-policy.ts';
export * from './reward-selection.ts';
export * from './trainer-api.ts';
export * from './trainer-ports.ts';
