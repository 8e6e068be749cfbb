/** Rows and pairs of compared policies in Markdown. */
import { MEASURES, type PairRow, type PolicyRow, TOPS } from '../judging/compare-policies.ts';

const four = (x: number): string => x.toFixed(4);
/** A share as a signed percentage. */
export const signedPercent = (share: number): string =>
  `${share >= 0 ? '+' : ''}${(100 * share).toFixed(2)} %`;

/** Rows as Markdown. */
export function policyTable(rows: readonly PolicyRow[]): string {
  return [
    '| top | policy | CTR | CTCVR | GPM | reward |',
    '|---|---|---|---|---|---|',
    ...TOPS.flatMap((top) =>
      rows
        .filter((row) => row.top === top)
        .map(
          ({ policy, measures }) =>
            `| ${top} | ${policy} | ${MEASURES.map((m) => four(measures[m])).join(' | ')} |`,
        ),
    ),
  ].join('\n');
}

/** Pairs as Markdown. */
export function pairTable(pairs: readonly PairRow[]): string {
  return [
    '| top | reward of | difference | 95 % interval | relative | by seed |',
    '|---|---|---|---|---|---|',
    ...TOPS.flatMap((top) =>
      pairs
        .filter((pair) => pair.top === top)
        .map(
          ({ policy, against, difference, relative, relativeBySeed }) =>
            `| ${top} | ${policy} - ${against} | ${four(difference.mean)} | ${four(difference.low)} to ${four(difference.high)} | ${signedPercent(relative)} | ${relativeBySeed.map(signedPercent).join(', ')} |`,
        ),
    ),
  ].join('\n');
}
