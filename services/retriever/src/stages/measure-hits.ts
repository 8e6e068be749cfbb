/**
 * Hit rate of a policy on the stream: requests that are held back from training are searched as they come, and a hit is a
 * clicked item among the first K distinct items ("simulation hit rate", OneMall, section 4). Legality is the share of an
 * unconstrained beam's SIDs that exist.
 */
import type { Metric } from '@onemall/contracts';

export const HIT_RATE_AT = [10, 50] as const;

export interface Measurement {
  policyVersion: string;
  step: number;
  scenario: string;
  /** Place of the clicked item among the served ones, 0 is first; -1 where it is not among them. */
  place: number;
  /** SIDs of the unconstrained beam, and how many of them exist. */
  legal: { searched: number; existing: number };
}

interface Sums {
  step: number;
  requests: number;
  hits: number[];
  searched: number;
  existing: number;
}

/** Adds measurements up until they are taken as one metric record per policy version and scenario. */
export class HitSums {
  #sums = new Map<string, { policyVersion: string; scenario: string; sums: Sums }>();

  add({ policyVersion, step, scenario, place, legal }: Measurement): void {
    const key = JSON.stringify([policyVersion, scenario]);
    let entry = this.#sums.get(key);
    if (!entry) {
      const sums = { step, requests: 0, hits: HIT_RATE_AT.map(() => 0), searched: 0, existing: 0 };
      entry = { policyVersion, scenario, sums };
      this.#sums.set(key, entry);
    }
    const { sums } = entry;
    sums.requests++;
    for (const [i, k] of HIT_RATE_AT.entries()) if (place >= 0 && place < k) sums.hits[i]!++;
    sums.searched += legal.searched;
    sums.existing += legal.existing;
  }

  /** Rates with their counts, so that spans can be added up; empties the sums. */
  take(createdMs: number): Metric[] {
    const metrics = [...this.#sums.values()].map(({ policyVersion, scenario, sums }): Metric => {
      const values: Record<string, number> = { requests: sums.requests };
      for (const [i, k] of HIT_RATE_AT.entries()) {
        values[`hits_${k}`] = sums.hits[i]!;
        values[`hr_${k}`] = sums.hits[i]! / sums.requests;
      }
      if (sums.searched > 0) values.legality = sums.existing / sums.searched;
      return { source: 'retriever', scenario, version: policyVersion, step: sums.step, values, createdMs };
    });
    this.#sums = new Map();
    return metrics;
  }
}
