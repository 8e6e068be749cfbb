/**
 * HR@K = mean over requests of the share of the request's distinct viewed items among the first K distinct items of a list,
 * by scenario; beside it the same for the clicked items, over the requests that have one. Lists are compared on the same requests
 * by a paired bootstrap.
 */
import { SeededRandom } from '@onemall/service-kit';

export const KS = [50, 100, 500] as const;
/** The longest list that is asked for. */
export const DEPTH = Math.max(...KS);

/** Parts of the candidates, as many as `KS`: a list of 50 is one thing among 500 rooms and another among 5,000. */
export const SHARES = [0.01, 0.02, 0.1] as const;

/** The K that are these shares of the candidates; null where one of them is no item or more than a list holds. */
export function depthsAtShares(numCandidates: number): number[] | null {
  const depths = SHARES.map((share) => Math.round(share * numCandidates));
  return depths.every((k) => k > 0 && k <= DEPTH) ? depths : null;
}

/** Place of each item among the first DEPTH distinct items of a list, 0 is first; -1 where it is not among them. */
export function ranksOf(list: ArrayLike<number>, items: ArrayLike<number>): number[] {
  const places = new Map<number, number>();
  for (let at = 0; at < list.length && places.size < DEPTH; at++)
    if (!places.has(list[at]!)) places.set(list[at]!, places.size);
  return Array.from(items, (item) => places.get(item) ?? -1);
}

/** Share of the items with one of the first K places, for each K; null where there is no item. */
export function hitShares(ranks: readonly number[], ks: readonly number[] = KS): number[] | null {
  if (ranks.length === 0) return null;
  return ks.map((k) => ranks.filter((rank) => rank >= 0 && rank < k).length / ranks.length);
}

/** The expectation for a list drawn without a look: each item is among K of n with the same chance. */
export const randomShares = (numCandidates: number, ks: readonly number[] = KS): number[] =>
  ks.map((k) => Math.min(1, k / numCandidates));

/** What one request gave, one entry for each model. */
export interface RequestHits {
  request: number;
  scenario: string;
  viewed: Record<string, number[]>;
  /** Empty where nothing was clicked. */
  clicked: Record<string, number[]>;
}

/** The requests that every seed judged, each with the mean of its hits. */
export function meanOverSeeds(bySeed: readonly (readonly RequestHits[])[]): RequestHits[] {
  const others = bySeed.slice(1).map((hits) => new Map(hits.map((h) => [h.request, h])));
  return bySeed[0]!.flatMap((first) => {
    const all = [first, ...others.flatMap((hits) => hits.get(first.request) ?? [])];
    if (all.length < bySeed.length) return [];
    const mean = (variant: 'viewed' | 'clicked'): Record<string, number[]> =>
      Object.fromEntries(
        Object.entries(first[variant]).map(([list, shares]) => [
          list,
          shares.map((_, k) => all.reduce((sum, h) => sum + h[variant][list]![k]!, 0) / all.length),
        ]),
      );
    return [{ ...first, viewed: mean('viewed'), clicked: mean('clicked') }];
  });
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

const RESAMPLES = 1_000;

/**
 * Mean and its 95 % interval by bootstrap over requests; of paired differences it excludes 0 where one list is better.
 * @param values one per request
 */
export function bootstrap(values: ArrayLike<number>, seed = 1): Interval {
  const n = values.length;
  const mean = (of: (i: number) => number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[of(i)]!;
    return sum / n;
  };
  if (n === 0) return { mean: Number.NaN, low: Number.NaN, high: Number.NaN };
  const random = new SeededRandom(seed);
  const means = Float64Array.from({ length: RESAMPLES }, () => mean(() => random.int(n))).sort();
  return {
    mean: mean((i) => i),
    low: means[Math.floor(0.025 * RESAMPLES)]!,
    high: means[Math.ceil(0.975 * RESAMPLES) - 1]!,
  };
}

/** Of one scenario and one list: HR at each K, with intervals. */
export function hitRates(
  hits: readonly RequestHits[],
  model: string,
  variant: 'viewed' | 'clicked',
): { requests: number; at: Interval[] } {
  const rows = hits.map((h) => h[variant][model]).filter((r) => r !== undefined);
  return { requests: rows.length, at: KS.map((_, k) => bootstrap(rows.map((r) => r[k]!))) };
}

/** HR of `model` minus that of `base` on the same requests. */
export function hitRateDifference(
  hits: readonly RequestHits[],
  model: string,
  base: string,
  variant: 'viewed' | 'clicked',
): Interval[] {
  const pairs = hits.flatMap((h) => {
    const [a, b] = [h[variant][model], h[variant][base]];
    return a && b ? [[a, b] as const] : [];
  });
  return KS.map((_, k) => bootstrap(pairs.map(([a, b]) => a[k]! - b[k]!)));
}
