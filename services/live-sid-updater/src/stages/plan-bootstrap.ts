import { codesForCatalogue, LIVE_STREAM, PRODUCT_CARD } from '@onemall/quantization';
import type { UpdaterState } from '../state/updater-state.ts';

export interface BootstrapLimits {
  minItemsForCodebook: number;
  bootstrapQuietMs: number;
  bootstrapMaxWaitMs: number;
}
export type BootstrapPlan =
  | { kind: 'train'; scenario: string }
  | { kind: 'wait'; scenario: string; why: string };

/**
 * What to do about each configured scenario without a codebook. A scenario of which nothing is there is not waited
 * for. Product cards go first, since videos and rooms are made of them.
 * @param enoughSinceMs when a scenario had enough items first; written here
 */
export function planBootstrap(
  state: UpdaterState,
  enoughSinceMs: Map<string, number>,
  limits: BootstrapLimits,
  nowMs: number,
): BootstrapPlan[] {
  const missing = [...state.scenarios]
    .filter((scenario) => !state.codebookRecords.has(scenario) && isPresent(state, scenario))
    .sort((a, b) => Number(b === PRODUCT_CARD) - Number(a === PRODUCT_CARD));
  return missing.map((scenario): BootstrapPlan => {
    const wait = (why: string): BootstrapPlan => ({ kind: 'wait', scenario, why });
    if (scenario !== PRODUCT_CARD && missing.includes(PRODUCT_CARD)) return wait('product cards come first');
    const source = scenario === LIVE_STREAM ? PRODUCT_CARD : scenario;
    const count = state.catalogue.count(source);
    if (count < limits.minItemsForCodebook) {
      enoughSinceMs.delete(scenario);
      return wait(`${count} of at least ${limits.minItemsForCodebook} items of ${source} are there`);
    }
    const since = enoughSinceMs.get(scenario) ?? nowMs;
    enoughSinceMs.set(scenario, since);
    const quiet = nowMs - (state.lastItemMs.get(source) ?? 0) >= limits.bootstrapQuietMs;
    if (quiet || nowMs - since >= limits.bootstrapMaxWaitMs) return { kind: 'train', scenario };
    return wait('items are still coming');
  });
}

function isPresent(state: UpdaterState, scenario: string): boolean {
  return state.catalogue.count(scenario) > 0 || (scenario === LIVE_STREAM && state.rooms.liveCount > 0);
}

/** Codes per level for the items of a scenario that are there; live rooms count themselves, not their products. */
export function bootstrapCodes(
  state: UpdaterState,
  scenario: string,
  lastLevel: 'kmeans' | 'fsq',
): readonly [number, number, number] {
  const count = state.catalogue.count(scenario);
  return codesForCatalogue(
    scenario === LIVE_STREAM ? Math.max(count, state.rooms.liveCount) : count,
    lastLevel,
  );
}
