/** How well a pass over the positives foresaw them: a step predicts its samples by the weights from before it trains them. */
import type { ScenarioFigures } from '@onemall/learning';

type Figures = Record<string, ScenarioFigures>;

/** Hits and mean cross-entropy by scenario. */
export interface PassFigures {
  all: Figures;
  /** Of the last tenth of the pass. */
  end: Figures;
}

export const emptyPass = (): PassFigures => ({ all: {}, end: {} });

/** Adds the figures of a step, or of another seed's pass, to those before. */
export function addFigures(sums: Figures, more: Readonly<Figures>): void {
  for (const [scenario, { samples, hits, maskedSamples, maskedHits, outsideTrie, ntp }] of Object.entries(
    more,
  )) {
    sums[scenario] ??= {
      ...{ samples: 0, hits: [0, 0, 0], ntp: [0, 0, 0] },
      ...{ maskedSamples: 0, maskedHits: [0, 0, 0], outsideTrie: 0 },
    };
    const sum = sums[scenario];
    for (const level of [0, 1, 2] as const) {
      sum.hits[level] += hits[level];
      sum.maskedHits[level] += maskedHits[level];
      sum.ntp[level] = (sum.ntp[level] * sum.samples + ntp[level] * samples) / (sum.samples + samples);
    }
    sum.samples += samples;
    sum.maskedSamples += maskedSamples;
    sum.outsideTrie += outsideTrie;
  }
}
