/**
 * HR@K = mean over requests of the share of the distinct items viewed (or clicked) that are among the first K distinct
 * items of a list. Beside the policy stand popularity (most clicked first, over requests not held back) and random (the
 * expected share of K different items drawn from those that exist).
 */
import type { Item } from '@onemall/contracts';
import type { LoggedRequest } from './group-requests.ts';

export const KS = [50, 100, 500] as const;

/** Share of `wanted` among the first k different items of the list. */
export function hitShare(list: readonly string[], wanted: ReadonlySet<string>, k: number): number {
  const first = new Set<string>();
  for (const item of list) {
    if (first.size === k) break;
    first.add(item);
  }
  let hits = 0;
  for (const item of wanted) if (first.has(item)) hits++;
  return wanted.size > 0 ? hits / wanted.size : 0;
}

interface Sums {
  requests: number;
  shares: Record<string, number>;
}

export class HitRates {
  readonly #popular = new Map<string, string[]>();
  readonly #numItems = new Map<string, number>();
  readonly #sums = new Map<string, Sums>();

  constructor(clicksByItem: ReadonlyMap<string, ReadonlyMap<string, number>>, items: readonly Item[]) {
    for (const { scenario } of items) this.#numItems.set(scenario, (this.#numItems.get(scenario) ?? 0) + 1);
    for (const [scenario, clicks] of clicksByItem)
      this.#popular.set(
        scenario,
        [...clicks].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([itemId]) => itemId),
      );
  }

  add(request: LoggedRequest, policy: readonly string[]): void {
    const { scenario, viewed, clicked } = request;
    const sums = this.#sums.get(scenario) ?? { requests: 0, shares: {} };
    this.#sums.set(scenario, sums);
    sums.requests++;
    const popular = this.#popular.get(scenario) ?? [];
    const numItems = this.#numItems.get(scenario) ?? 0;
    for (const k of KS) {
      const add = (name: string, share: number): void => {
        const key = `${name}_${k}`;
        sums.shares[key] = (sums.shares[key] ?? 0) + share;
      };
      add('hr_viewed', hitShare(policy, viewed, k));
      add('hr_clicked', hitShare(policy, clicked, k));
      add('popularity_viewed', hitShare(popular, viewed, k));
      add('popularity_clicked', hitShare(popular, clicked, k));
      // The same for both: each wanted item is among K drawn ones with this probability.
      const drawn = numItems > 0 ? Math.min(1, k / numItems) : 0;
      add('random_viewed', drawn);
      add('random_clicked', drawn);
    }
  }

  /** By scenario: number of requests and mean shares. */
  summary(): Record<string, Record<string, number>> {
    return Object.fromEntries(
      [...this.#sums].map(([scenario, { requests, shares }]) => [
        scenario,
        {
          requests,
          items: this.#numItems.get(scenario) ?? 0,
          ...Object.fromEntries(Object.entries(shares).map(([name, sum]) => [name, sum / requests])),
        },
      ]),
    );
  }
}
