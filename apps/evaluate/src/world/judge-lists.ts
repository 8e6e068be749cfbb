/**
 * Ranked lists of several policies, judged item by item: CTR, CTCVR, GPM and reward of the first 10, 100 and 500
 * (OneMall, table 4), with paired intervals. Whoever judges, the ground truth or a ranker that trained no policy, gives three numbers an item.
 */
import { bootstrap, type Interval } from './hit-rates.ts';

export const TOPS = [10, 100, 500] as const;
export const MEASURES = ['ctr', 'ctcvr', 'gpm', 'reward'] as const;
export type Measure = (typeof MEASURES)[number];

/** What a judge says of the items of one list, in its order. */
export interface Judgement {
  pCtr: ArrayLike<number>;
  pCtcvr: ArrayLike<number>;
  /** pCtcvr x expected paid value given the buy, minor units. */
  valueCents: ArrayLike<number>;
}

export interface RewardWeights {
  alpha: number;
  beta: number;
  gamma: number;
}
/** r = alpha CTR + beta CTCVR + gamma GPM (model.md, RL). */
export const REWARD: RewardWeights = { alpha: 1, beta: 30, gamma: 1 };
const GPM_RATIO = 1.25;

/**
 * S: values are divided by it, so that the mean GPM of the first 10 of the base policy is 1.25 times their mean CTR. One S for
 * each scenario and judge, from the base policy's lists.
 */
export function gpmScale(baseLists: readonly Judgement[]): number {
  let clicks = 0;
  let value = 0;
  for (const list of baseLists) {
    const n = Math.min(TOPS[0], list.pCtr.length);
    for (let i = 0; i < n; i++) {
      clicks += list.pCtr[i]! / n;
      value += list.valueCents[i]! / n;
    }
  }
  if (!(clicks > 0 && value > 0))
    throw new Error(
      `The base policy's lists have ${clicks} clicks and ${value} of value: no scale fits them`,
    );
  return value / (GPM_RATIO * clicks);
}

/** Means over the first K items, or over all of a shorter list; one row for each of `TOPS`. */
export type TopMeans = readonly Record<Measure, number>[];

/** @throws Error for an empty list, of which there is no mean */
export function topMeans(list: Judgement, scale: number, weights: RewardWeights = REWARD): TopMeans {
  if (list.pCtr.length === 0)
    throw new Error('An empty list has no means: leave its request out for all policies');
  const mean = (values: ArrayLike<number>, k: number): number => {
    const n = Math.min(k, values.length);
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[i]!;
    return sum / n;
  };
  return TOPS.map((k) => {
    const ctr = mean(list.pCtr, k);
    const ctcvr = mean(list.pCtcvr, k);
    const gpm = mean(list.valueCents, k) / scale;
    return { ctr, ctcvr, gpm, reward: weights.alpha * ctr + weights.beta * ctcvr + weights.gamma * gpm };
  });
}

/** One request: the same for every policy. */
export interface JudgedRequest {
  request: number;
  scenario: string;
  /** By policy. */
  lists: Record<string, Judgement>;
}

export interface PolicyRow {
  policy: string;
  top: number;
  measures: Record<Measure, number>;
  /** Of the reward, against the base policy on the same requests; null for the base policy. */
  difference: Interval | null;
  /** The same as a share of the base policy's mean reward. */
  relative: number | null;
}

/**
 * @param requests where each policy has a list that is not empty
 * @param base the policy that sets the scales and that the others are compared with
 */
export function comparePolicies(
  requests: readonly JudgedRequest[],
  base: string,
  weights: RewardWeights = REWARD,
): { rows: PolicyRow[]; scales: Record<string, number> } {
  const scales: Record<string, number> = {};
  for (const scenario of new Set(requests.map((r) => r.scenario)))
    scales[scenario] = gpmScale(requests.filter((r) => r.scenario === scenario).map((r) => r.lists[base]!));
  const policies = Object.keys(requests[0]?.lists ?? {});
  const means = new Map(
    policies.map((policy) => [
      policy,
      requests.map(({ lists, scenario }) => topMeans(lists[policy]!, scales[scenario]!, weights)),
    ]),
  );
  const rows = policies.flatMap((policy) =>
    TOPS.map((top, t): PolicyRow => {
      const own = means.get(policy)!;
      const measures = Object.fromEntries(
        MEASURES.map((m) => [m, own.reduce((sum, row) => sum + row[t]![m], 0) / own.length]),
      ) as Record<Measure, number>;
      if (policy === base) return { policy, top, measures, difference: null, relative: null };
      const ofBase = means.get(base)!;
      const difference = bootstrap(own.map((row, i) => row[t]!.reward - ofBase[i]![t]!.reward));
      const baseReward = ofBase.reduce((sum, row) => sum + row[t]!.reward, 0) / ofBase.length;
      return { policy, top, measures, difference, relative: difference.mean / baseReward };
    }),
  );
  return { rows, scales };
}

/** Rows as Markdown. */
export function policyTable(rows: readonly PolicyRow[]): string {
  const four = (x: number): string => x.toFixed(4);
  return [
    '| top | policy | CTR | CTCVR | GPM | reward | reward against base | 95 % interval |',
    '|---|---|---|---|---|---|---|---|',
    ...TOPS.flatMap((top) =>
      rows
        .filter((row) => row.top === top)
        .map(({ policy, measures, difference, relative }) => {
          const compared =
            difference && relative !== null
              ? `${relative >= 0 ? '+' : ''}${(100 * relative).toFixed(2)} % | ${four(difference.low)} to ${four(difference.high)}`
              : ' | ';
          return `| ${top} | ${policy} | ${MEASURES.map((m) => four(measures[m])).join(' | ')} | ${compared} |`;
        }),
    ),
  ].join('\n');
}
