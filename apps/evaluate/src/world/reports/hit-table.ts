/** Tables of hit rates, and of what a sample costs, in Markdown. */
import type { RetrievalCost } from '@onemall/learning/sequences';
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

const percent = ({ mean, low, high }: Interval): string =>
  `${(100 * mean).toFixed(1)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

/** HR@K in percent with 95 % intervals, by scenario and variant, and the paired differences between the lists. */
export function hitTable(hits: readonly RequestHits[], models: readonly string[]): string {
  const columns = KS.map((k) => `HR@${k}`);
  return tables(hits, columns, [RANDOM, POPULARITY, ...models, ORACLE], models, [POPULARITY]);
}

/** The same in the first percent, two and ten of the candidates, so that worlds of other sizes compare. */
export function shareTable(hits: readonly RequestHits[], models: readonly string[]): string {
  const columns = SHARES.map((share) => `first ${100 * share} %`);
  const lists = [RANDOM, POPULARITY, ...models, TASTE_DRAW, ORACLE];
  return tables(hits, columns, lists, [POPULARITY, ...models], [RANDOM]);
}

/** @param compared each against `bases` and those before it */
function tables(
  hits: readonly RequestHits[],
  columns: readonly string[],
  lists: readonly string[],
  compared: readonly string[],
  bases: readonly string[],
): string {
  const lines: string[] = [];
  const scenarios = SCENARIOS.flatMap((scenario) => {
    const own = hits.filter((h) => h.scenario === scenario);
    return own.length > 0 ? [{ scenario, own }] : [];
  });
  const rule = columns.map(() => '---').join('|');
  for (const variant of ['viewed', 'clicked'] as const) {
    lines.push('', `HR of the ${variant} items, %`, '');
    lines.push(`| scenario | requests | list | ${columns.join(' | ')} |`, `|---|---|---|${rule}|`);
    for (const { scenario, own } of scenarios)
      for (const list of lists) {
        const { requests, at } = hitRates(own, list, variant);
        if (requests > 0)
          lines.push(`| ${scenario} | ${requests} | ${list} | ${at.map(percent).join(' | ')} |`);
      }
  }
  for (const variant of ['viewed', 'clicked'] as const) {
    lines.push('', `Paired differences in HR of the ${variant} items, %`, '');
    lines.push(`| scenario | lists | ${columns.join(' | ')} |`, `|---|---|${rule}|`);
    for (const { scenario, own } of scenarios)
      compared.forEach((list, l) => {
        for (const base of [...bases, ...compared.slice(0, l)])
          lines.push(
            `| ${scenario} | ${list} - ${base} | ${hitRateDifference(own, list, base, variant).map(percent).join(' | ')} |`,
          );
      });
  }
  return lines.join('\n');
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
