/** Tables of hit rates, and of what a sample costs, in Markdown. */
import type { RetrievalCost } from '@onemall/learning/sequences';
import { hitRateDifference, hitRates, type Interval, KS, type RequestHits } from '../judging/hit-rates.ts';
import { ORACLE, POPULARITY, RANDOM } from '../judging/judge-requests.ts';
import { SCENARIOS } from '../log/world-log.ts';

const percent = ({ mean, low, high }: Interval): string =>
  `${(100 * mean).toFixed(1)} (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

/** The table in Markdown: HR@K in percent with 95 % intervals, by scenario and variant. */
export function hitTable(hits: readonly RequestHits[], models: readonly string[]): string {
  const lines: string[] = [];
  for (const variant of ['viewed', 'clicked'] as const) {
    lines.push('', `HR of the ${variant} items, %`, '');
    lines.push(`| scenario | requests | list | ${KS.map((k) => `HR@${k}`).join(' | ')} |`);
    lines.push(`|---|---|---|${KS.map(() => '---').join('|')}|`);
    for (const scenario of SCENARIOS) {
      const own = hits.filter((h) => h.scenario === scenario);
      for (const model of [RANDOM, POPULARITY, ...models, ORACLE]) {
        const { requests, at } = hitRates(own, model, variant);
        lines.push(`| ${scenario} | ${requests} | ${model} | ${at.map(percent).join(' | ')} |`);
      }
    }
  }
  for (const variant of ['viewed', 'clicked'] as const) {
    lines.push('', `Paired differences in HR of the ${variant} items, %`, '');
    lines.push(`| scenario | lists | ${KS.map((k) => `HR@${k}`).join(' | ')} |`);
    lines.push(`|---|---|${KS.map(() => '---').join('|')}|`);
    for (const scenario of SCENARIOS) {
      const own = hits.filter((h) => h.scenario === scenario);
      models.forEach((model, m) => {
        for (const base of [POPULARITY, ...models.slice(0, m)])
          lines.push(
            `| ${scenario} | ${model} - ${base} | ${hitRateDifference(own, model, base, variant).map(percent).join(' | ')} |`,
          );
      });
    }
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
