/** Tables of hit rates, and of what a sample costs, in Markdown. */
import type { RetrievalCost } from '@onemall/learning/sequences';
import { pairsOf } from '../judging/compare-policies.ts';
import {
  hitRateDifference,
  hitRates,
  type Interval,
  KS,
  type RequestHits,
  SHARES,
} from '../judging/hit-rates.ts';
import { ORACLE, POPULARITY, RANDOM, TASTE_DRAW } from '../judging/judge-requests.ts';
import { SCENARIOS } from '../log/world-log.ts';

const VARIANTS = ['viewed', 'clicked'] as const;
const [SHORTEST] = KS;
const HR_AT = KS.map((k) => `HR@${k}`);
const rule = (columns: number): string => `|${'---|'.repeat(columns)}`;

const points = (share: number): string => (100 * share).toFixed(1).replace(/^-0\.0$/, '0.0');
const percent = ({ mean, low, high }: Interval): string =>
  `${points(mean)} (${points(low)} to ${points(high)})`;
/** A list that holds all candidates says nothing. */
const rate = (interval: Interval): string => (interval.low === 1 ? 'all' : percent(interval));

const FORMS: Record<string, string> = {
  '': 'OneMall',
  '-clicks': 'OneMall, clicks alone',
  '-events': 'OneMall without Query-Former',
};
const BASELINES: Record<string, string> = { sasrec: 'SASRec', tiger: "TIGER's form" };

/**
 * What a list is called in the tables.
 *
 * titleOf('onemall-small-clicks-dense') -> 'OneMall, clicks alone, dense head + log popularity'
 */
export function titleOf(list: string): string {
  const [isOneMall, form = '', dense] = /^onemall-[^-]+(-clicks|-events)?(-dense)?$/.exec(list) ?? [];
  if (isOneMall) return `${FORMS[form]}, ${dense ? 'dense head + log popularity' : 'beam'}`;
  const [isBaseline, name, popular] = /^(sasrec|tiger)(-popular)?$/.exec(list) ?? [];
  return isBaseline ? `${BASELINES[name!]}${popular ? ' + log popularity' : ''}` : list;
}

/** HR@K in percent with 95 % intervals, by scenario and variant. */
export const hitTable = (hits: readonly RequestHits[], models: readonly string[]): string[] =>
  rateRows(hits, HR_AT, [RANDOM, POPULARITY, ...models, ORACLE]);

/** The same in the first percent, two and ten of the candidates, so that worlds of other sizes compare. */
export function shareTable(hits: readonly RequestHits[], models: readonly string[]): string[] {
  const columns = SHARES.map((share) => `first ${100 * share} %`);
  const lists = [RANDOM, POPULARITY, ...models, TASTE_DRAW, ORACLE];
  return [
    ...rateRows(hits, columns, lists),
    '',
    ...differenceRows(hits, columns, [POPULARITY, ...models], [RANDOM]),
  ];
}

/** Paired differences between all models, and to popularity, at each K. */
export const differenceTable = (hits: readonly RequestHits[], models: readonly string[]): string[] =>
  differenceRows(hits, HR_AT, models, [POPULARITY]);

/** The first list less each of the others at the smallest K, all scenarios in one row. */
export function againstTable(hits: readonly RequestHits[], models: readonly string[]): string[] {
  const [list, ...others] = models as [string, ...string[]];
  const scenarios = byScenario(hits);
  return [
    `Paired differences in HR@${SHORTEST}, % (95 % interval): ${titleOf(list)} against each`,
    '',
    `| against | ${scenarios.map(({ scenario }) => `${scenario} viewed; clicked`).join(' | ')} |`,
    rule(1 + scenarios.length),
    ...[POPULARITY, ...others].map((other) => {
      const cells = scenarios.map(({ own }) =>
        VARIANTS.map((variant) => percent(hitRateDifference(own, list, other, variant)[0]!)).join('; '),
      );
      return `| ${titleOf(other)} | ${cells.join(' | ')} |`;
    }),
  ];
}

/** Each scenario in two rows at the smallest K: lists without a model beside the policies, and the policies against each other. */
export function scenarioTable(hits: readonly RequestHits[], policies: readonly string[]): string[] {
  const lists = [RANDOM, POPULARITY, ...policies, ORACLE];
  const pairs = pairsOf(policies);
  const columns = ['scenario', 'items', 'requests', ...lists, ...pairs.map((pair) => pair.join(' - '))];
  return [
    `HR@${SHORTEST} by scenario, % (of paired differences the 95 % interval):`,
    '',
    `| ${columns.join(' | ')} |`,
    rule(columns.length),
    ...VARIANTS.flatMap((variant) =>
      byScenario(hits).map(({ scenario, own }) => {
        const rates = lists.map((list) => points(hitRates(own, list, variant).at[0]!.mean));
        const differences = pairs.map(([policy, against]) =>
          percent(hitRateDifference(own, policy, against, variant)[0]!),
        );
        const { requests } = hitRates(own, RANDOM, variant);
        return `| ${[scenario, variant, requests, ...rates, ...differences].join(' | ')} |`;
      }),
    ),
  ];
}

const byScenario = (hits: readonly RequestHits[]) =>
  SCENARIOS.map((scenario) => ({ scenario, own: hits.filter((h) => h.scenario === scenario) })).filter(
    ({ own }) => own.length > 0,
  );

function rateRows(
  hits: readonly RequestHits[],
  columns: readonly string[],
  lists: readonly string[],
): string[] {
  return VARIANTS.flatMap((variant, v) => [
    ...(v > 0 ? [''] : []),
    `HR of the ${variant} items, % (95 % interval)`,
    '',
    `| scenario (requests) | list | ${columns.join(' | ')} |`,
    rule(2 + columns.length),
    ...byScenario(hits).flatMap(({ scenario, own }) =>
      lists.flatMap((list) => {
        const { requests, at } = hitRates(own, list, variant);
        return requests > 0
          ? [`| ${scenario} (${requests}) | ${titleOf(list)} | ${at.map(rate).join(' | ')} |`]
          : [];
      }),
    ),
  ]);
}

/** @param compared each against `bases` and those before it */
function differenceRows(
  hits: readonly RequestHits[],
  columns: readonly string[],
  compared: readonly string[],
  bases: readonly string[],
): string[] {
  return VARIANTS.flatMap((variant, v) => [
    ...(v > 0 ? [''] : []),
    `Paired differences in HR of the ${variant} items, %`,
    '',
    `| scenario | lists | ${columns.join(' | ')} |`,
    rule(2 + columns.length),
    ...byScenario(hits).flatMap(({ scenario, own }) =>
      compared.flatMap((list, l) =>
        [...bases, ...compared.slice(0, l)].map((base) => {
          const cells = hitRateDifference(own, list, base, variant).map(percent);
          return `| ${scenario} | ${titleOf(list)} - ${titleOf(base)} | ${cells.join(' | ')} |`;
        }),
      ),
    ),
  ]);
}

/** What a sample costs in one form of OneMall. */
export interface ModelCost {
  name: string;
  cost: RetrievalCost;
}

/** Table 6 of the paper but for the hit rates. */
export const costTable = (costs: readonly ModelCost[]): string[] => [
  '| list | elements that a token reads | GFLOP of a sample, forward |',
  '|---|---|---|',
  ...costs.map(
    ({ name, cost }) => `| ${name} | ${cost.contextLength} | ${(cost.forwardFlops / 1e9).toFixed(4)} |`,
  ),
];
