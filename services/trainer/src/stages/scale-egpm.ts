/**
 * The scale S of pEgpm = pCtcvr x E[value | buy] / S (model.md, RL), and the cap on paid values.
 *
 * S is set once per scenario so that the mean of pEgpm is 1.25 times the mean of pCtr. model.md takes the means over the
 * base policy's top 10; the ranker trainer sees no rollouts, so here they run over logged exposures, each predicted
 * before it is trained on: what the logging policy put on the page stands for the base policy's top. After it is set S
 * stays for all later versions of the ranker.
 *
 * Paid values are cut at the 99.5th percentile of the scenario's newest buys, so that one huge order does not set the scale.
 */
export interface EgpmScenario {
  /** Paid values of the newest buys in minor units, oldest first. */
  values: number[];
  exposures: number;
  buys: number;
  sumCtr: number;
  /** Sum of pCtcvr x E[value | buy], minor units. */
  sumEgpm: number;
  /** S in minor units; null until enough was seen. */
  scale: number | null;
}
export type EgpmState = Record<string, EgpmScenario>;

export interface EgpmRules {
  /** Exposures predicted before S is set: the first predictions come from untrained weights and are not counted. */
  minExposures: number;
  minBuys: number;
}

const RATIO = 1.25;
const QUANTILE = 0.995;
const KEPT_VALUES = 2_000;

const fresh = (): EgpmScenario => ({
  values: [],
  exposures: 0,
  buys: 0,
  sumCtr: 0,
  sumEgpm: 0,
  scale: null,
});

/** The value that the ranker learns from: at most the 99.5th percentile of the scenario's newest buys. */
export function winsorize(valueCents: number, scenario: EgpmScenario | undefined): number {
  if (!scenario || scenario.values.length === 0) return valueCents;
  const sorted = Float64Array.from(scenario.values).sort();
  const cap = sorted[Math.min(sorted.length - 1, Math.ceil(QUANTILE * sorted.length) - 1)]!;
  return Math.min(valueCents, cap);
}

export interface EgpmObservation {
  scenario: string;
  bought: boolean;
  buyValueCents: number;
  pCtr: number;
  pCtcvr: number;
  buyValueGivenBuyCents: number;
}

/** The state after a batch. Changes nothing in the one given. */
export function observeEgpm(state: EgpmState, rows: readonly EgpmObservation[], rules: EgpmRules): EgpmState {
  const next: EgpmState = { ...state };
  const changed = new Set<string>();
  for (const row of rows) {
    if (!changed.has(row.scenario)) {
      const before = next[row.scenario];
      next[row.scenario] = before ? { ...before, values: before.values.slice() } : fresh();
      changed.add(row.scenario);
    }
    const s = next[row.scenario]!;
    if (row.bought) {
      s.values.push(row.buyValueCents);
      s.buys++;
      if (s.values.length > KEPT_VALUES) s.values.shift();
    }
    s.exposures++;
    if (s.scale !== null) continue;
    // The second half of what is needed: by then the predictions are those of a trained model.
    if (s.exposures > rules.minExposures / 2) {
      s.sumCtr += row.pCtr;
      s.sumEgpm += row.pCtcvr * row.buyValueGivenBuyCents;
    }
    if (s.exposures >= rules.minExposures && s.buys >= rules.minBuys && s.sumCtr > 0 && s.sumEgpm > 0)
      s.scale = s.sumEgpm / (RATIO * s.sumCtr);
  }
  return next;
}

/** S by scenario, of those that have one. */
export const egpmScales = (state: EgpmState): Record<string, number> =>
  Object.fromEntries(
    Object.entries(state).flatMap(([scenario, s]) => (s.scale === null ? [] : [[scenario, s.scale]])),
  );
