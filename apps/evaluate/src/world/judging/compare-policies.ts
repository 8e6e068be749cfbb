/**
 * Ranked lists of several policies, judged item by item: CTR, CTCVR, GPM and reward of the first 10, 100 and 500
 * (OneMall, table 4), with paired intervals. Whoever judges, the ground truth or a ranker that trained no policy, gives three numbers an item.
 */
import { type RewardWeights, rankCorrelation } from '@onemall/learning';
import { bootstrap, type Interval } from './hit-rates.ts';
import type { Judgement } from './judges.ts';

export const TOPS = [10, 100, 500] as const;
export const MEASURES = ['ctr', 'ctcvr', 'gpm', 'reward'] as const;
export type Measure = (typeof MEASURES)[number];

/** r = alpha CTR + beta CTCVR + gamma GPM (model.md, RL). */
export const REWARD: RewardWeights = { alpha: 1, beta: 30, gamma: 1 };
const GPM_RATIO = 1.25;

/** Means over the first K items, or over all of a shorter list; one row for each of `TOPS`. */
export type TopMeans = readonly { ctr: number; ctcvr: number; valueCents: number }[];

/** @throws Error for an empty list, of which there is no mean */
export function topMeans(list: Judgement): TopMeans {
  if (list.pCtr.length === 0)
    throw new Error('An empty list has no means: leave its request out for all policies');
  const mean = (values: ArrayLike<number>, k: number): number => {
    const n = Math.min(k, values.length);
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[i]!;
    return sum / n;
  };
  return TOPS.map((k) => ({
    ctr: mean(list.pCtr, k),
    ctcvr: mean(list.pCtcvr, k),
    valueCents: mean(list.valueCents, k),
  }));
}

/**
 * How far two judges order the first K items of a list by reward alike, one for each of `TOPS`; null where one tells none apart.
 * @param scale S of both, see `gpmScale`
 */
export function agreement(a: Judgement, b: Judgement, scale: number): (number | null)[] {
  const [x, y] = [a, b].map(({ pCtr, pCtcvr, valueCents }) =>
    Array.from(
      pCtr,
      (ctr, i) => REWARD.alpha * ctr + REWARD.beta * pCtcvr[i]! + (REWARD.gamma * valueCents[i]!) / scale,
    ),
  ) as [number[], number[]];
  return TOPS.map((k) => rankCorrelation(x.slice(0, k), y.slice(0, k)));
}

/**
 * S: values are divided by it, so that the mean GPM of the first 10 of the base policy is 1.25 times their mean CTR. One S for
 * each scenario and judge, from the base policy's lists.
 */
export function gpmScale(baseLists: readonly TopMeans[]): number {
  let clicks = 0;
  let value = 0;
  for (const [ten] of baseLists) {
    clicks += ten!.ctr;
    value += ten!.valueCents;
  }
  if (!(clicks > 0 && value > 0))
    throw new Error(
      `The base policy's lists have ${clicks} clicks and ${value} of value: no scale fits them`,
    );
  return value / (GPM_RATIO * clicks);
}

/** One request: the same for every policy. */
export interface JudgedRequest {
  request: number;
  scenario: string;
  /** By policy. */
  lists: Record<string, TopMeans>;
}

export interface PolicyRow {
  policy: string;
  top: number;
  measures: Record<Measure, number>;
}

/** One policy's reward minus another's on the same requests. */
export interface PairRow {
  policy: string;
  against: string;
  top: number;
  difference: Interval;
  /** The mean difference as a share of the other's mean reward. */
  relative: number;
  /** The same of each seed alone. */
  relativeBySeed: readonly number[];
}

/** All pairs of policies, a later one against an earlier one. */
export const pairsOf = (policies: readonly string[]): (readonly [policy: string, against: string])[] =>
  policies.flatMap((policy, i) => policies.slice(0, i).map((against) => [policy, against] as const));

/**
 * Of figures of the same requests under several seeds: the bootstrap draws requests, each with all its seeds, since those are not
 * independent of each other. The interval is one over requests; how far seeds differ is told by their own figures.
 * @param seeds by seed, figure by request
 */
export function pooledBootstrap(seeds: readonly ReadonlyMap<number, number>[]): Interval {
  const of = new Map<number, number[]>();
  for (const seed of seeds)
    for (const [request, value] of seed) of.set(request, [...(of.get(request) ?? []), value]);
  return bootstrap([...of.values()].map((own) => own.reduce((a, b) => a + b, 0) / own.length));
}

const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/**
 * @param seeds the requests of each seed, where each policy has a list that is not empty
 * @param base the policy that sets the scales, of each seed its own
 * @returns measures as means over the seeds, and all pairs of policies
 */
export function comparePolicies(
  seeds: readonly (readonly JudgedRequest[])[],
  base: string,
  weights: RewardWeights = REWARD,
): { rows: PolicyRow[]; pairs: PairRow[] } {
  const policies = Object.keys(seeds[0]?.[0]?.lists ?? {});
  const scaled = seeds.map((requests) => measured(requests, base, weights));
  const rows = policies.flatMap((policy) =>
    TOPS.map((top, t): PolicyRow => {
      const mean = (m: Measure): number =>
        meanOf(scaled.map((requests) => meanOf([...requests.values()].map((r) => r[policy]![t]![m]))));
      return {
        policy,
        top,
        measures: { ctr: mean('ctr'), ctcvr: mean('ctcvr'), gpm: mean('gpm'), reward: mean('reward') },
      };
    }),
  );
  const rewardOf = (policy: string, top: number): number =>
    rows.find((row) => row.policy === policy && row.top === top)!.measures.reward;
  const pairs = pairsOf(policies).flatMap(([policy, against]) =>
    TOPS.map((top, t): PairRow => {
      const reward = (r: Record<string, Scaled>, name: string): number => r[name]![t]!.reward;
      const differences = scaled.map(
        (requests) =>
          new Map([...requests].map(([id, r]) => [id, reward(r, policy) - reward(r, against)] as const)),
      );
      const difference = pooledBootstrap(differences);
      return {
        policy,
        against,
        top,
        difference,
        relative: difference.mean / rewardOf(against, top),
        relativeBySeed: differences.map(
          (own, seed) =>
            meanOf([...own.values()]) / meanOf([...scaled[seed]!.values()].map((r) => reward(r, against))),
        ),
      };
    }),
  );
  return { rows, pairs };
}

type Scaled = readonly Record<Measure, number>[];

/** The four measures by request, policy and depth, under the scales of one seed. */
function measured(
  requests: readonly JudgedRequest[],
  base: string,
  weights: RewardWeights,
): Map<number, Record<string, Scaled>> {
  const scales = new Map<string, number>();
  for (const scenario of new Set(requests.map((r) => r.scenario)))
    scales.set(
      scenario,
      gpmScale(requests.filter((r) => r.scenario === scenario).map((r) => r.lists[base]!)),
    );
  const withReward = (means: TopMeans, scale: number): Scaled =>
    means.map(({ ctr, ctcvr, valueCents }) => {
      const gpm = valueCents / scale;
      return { ctr, ctcvr, gpm, reward: weights.alpha * ctr + weights.beta * ctcvr + weights.gamma * gpm };
    });
  return new Map(
    requests.map(({ request, scenario, lists }) => [
      request,
      Object.fromEntries(
        Object.entries(lists).map(([policy, means]) => [policy, withReward(means, scales.get(scenario)!)]),
      ),
    ]),
  );
}
