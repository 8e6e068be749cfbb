/**
 * HR@K = mean over requests of the share of the request's distinct viewed items among the first K distinct items of a list,
 * by scenario; beside it the same for the clicked items, over the requests that have one. Lists are compared on the same requests
 * by a paired bootstrap.
 */
import { SeededRandom } from '@onemall/service-kit';

export const KS = [50, 100, 500] as const;
/** The longest list that is asked for. */
export const DEPTH = Math.max(...KS);

/** Share of `wanted` among the first K distinct items of a list, for each K of `KS`; null where nothing is wanted. */
export function hitShares(list: ArrayLike<number>, wanted: ReadonlySet<number>): number[] | null {
  if (wanted.size === 0) return null;
  const first = new Set<number>();
  let hits = 0;
  let at = 0;
  return KS.map((k) => {
    for (; at < list.length && first.size < k; at++) {
      const item = list[at]!;
      if (first.has(item)) continue;
      first.add(item);
      if (wanted.has(item)) hits++;
    }
    return hits / wanted.size;
  });
}

/** The expectation for a list drawn without a look: each item is among K of n with the same chance. */
export const randomShares = (numCandidates: number): number[] =>
  KS.map((k) => Math.min(1, k / numCandidates));

/** What one request gave, one entry for each model. */
export interface RequestHits {
  request: number;
  scenario: string;
  viewed: Record<string, number[]>;
  /** Empty where nothing was clicked. */
  clicked: Record<string, number[]>;
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
