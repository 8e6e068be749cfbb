/** Table 4 in Markdown, of one seed or several. */
import {
  comparePolicies,
  type JudgedRequest,
  pairsOf,
  pooledBootstrap,
  TOPS,
} from '../judging/compare-policies.ts';
import { bootstrap, type Interval, KS, meanOverSeeds, type RequestHits } from '../judging/hit-rates.ts';
import type { JudgedArms, JudgedLists } from '../judging/judge-arms.ts';
import { ORACLE, POPULARITY, RANDOM } from '../judging/judge-requests.ts';
import { differenceTable, hitTable, scenarioTable } from './hit-table.ts';
import { pairTable, policyTable, signedPercent } from './policy-tables.ts';

export interface RlFacts {
  plan: { hash: string };
  seed: number;
  rlSteps: number;
  rolloutWidth: number;
  groupsPerStep: number;
  syncSteps: number;
  rlWeight: number;
  /** Of the base policy; absent in runs of before it was recorded. */
  trieVersion?: string | undefined;
}

/** @param judged the requests of each seed */
export function rlReport(seeds: readonly RlFacts[], judged: readonly JudgedArms[]): string {
  const [{ plan, rlSteps, rolloutWidth, groupsPerStep, syncSteps, rlWeight }] = seeds as [RlFacts];
  const by = (judge: 'truth' | 'second'): string[] => {
    const { rows, pairs } = comparePolicies(
      judged.map(({ lists }) =>
        lists.map(
          (row): JudgedRequest => ({ request: row.request, scenario: row.scenario, lists: row[judge] }),
        ),
      ),
      'base',
    );
    return [policyTable(rows), '', pairTable(pairs)];
  };
  const hits = meanOverSeeds(judged.map((of) => of.hits));
  const policies = Object.keys(judged[0]?.lists[0]?.truth ?? {});
  return [
    `World plan ${plan.hash}, seed ${seeds.map((s) => s.seed).join(', ')}; ${judged.map(({ lists }) => lists.length).join(', ')} requests of the last span, ${rlSteps} steps an arm, beam ${rolloutWidth}, ${groupsPerStep} group(s) a step, L_RL at ${rlWeight} of the mean over a step's groups, the reference synced every ${syncSteps} steps. Measures are means over seeds; intervals are paired, over requests with all their seeds.${maskedBy(seeds)}`,
    '',
    'Judged by the ground truth:',
    '',
    ...by('truth'),
    '',
    'Judged by a second ranker of other users:',
    '',
    ...by('second'),
    '',
    ...hitRows(judged.map((of) => of.hits)),
    ...agreementRows(judged.flatMap(({ lists }) => lists)),
    '',
    ...scenarioTable(hits, policies),
    '',
    ...hitTable(hits, policies),
    '',
    ...differenceTable(hits, policies),
  ].join('\n');
}

/** What the header says of the tries whose children a softmax ran over. */
export function maskedBy(trainings: readonly { trieVersion?: string | undefined }[]): string {
  const versions = [...new Set(trainings.flatMap(({ trieVersion }) => trieVersion ?? []))];
  return versions.length > 0 ? ` Trained among the children in trie ${versions.join(', ')}.` : '';
}

/** Means over requests, by scenario. */
function agreementRows(judged: readonly JudgedLists[]): string[] {
  const scenarios = [...new Set(judged.map((row) => row.scenario))].sort();
  return [
    '',
    'Rank correlation (Spearman) of the rewarding ranker with the ground truth within a list of the base policy:',
    '',
    `| scenario | ${TOPS.map((k) => `top ${k}`).join(' | ')} |`,
    `|---|${TOPS.map(() => '---').join('|')}|`,
    ...scenarios.map((scenario) => {
      const own = judged.filter((row) => row.scenario === scenario);
      const cells = TOPS.map((_, k) => {
        const { mean, low, high } = bootstrap(own.flatMap((row) => row.agreement[k] ?? []));
        return `${mean.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
      });
      return `| ${scenario} | ${cells.join(' | ')} |`;
    }),
  ];
}

/** Over all scenarios, with differences as shares of themselves. @param seeds the requests of each */
function hitRows(seeds: readonly (readonly RequestHits[])[]): string[] {
  const withoutModel = [RANDOM, POPULARITY, ORACLE];
  const lists = Object.keys(seeds[0]?.[0]?.viewed ?? {});
  const arms = lists.filter((list) => !withoutModel.includes(list));
  const figure = (of: (row: RequestHits) => number): Interval =>
    pooledBootstrap(seeds.map((own) => new Map(own.map((row) => [row.request, of(row)]))));
  const points = (x: number): string => (100 * x).toFixed(2);
  const rows = lists.map(
    (list) =>
      `| ${list} | ${KS.map((_, k) => points(figure((row) => row.viewed[list]![k]!).mean)).join(' | ')} |`,
  );
  const pairs = pairsOf(arms).map(([arm, against]) => {
    const cells = KS.map((_, k) => {
      const { mean, low, high } = figure((row) => row.viewed[arm]![k]! - row.viewed[against]![k]!);
      const relative = mean / figure((row) => row.viewed[against]![k]!).mean;
      return `${points(mean)} (${points(low)} to ${points(high)}), ${signedPercent(relative)}`;
    });
    return `| ${arm} - ${against} | ${cells.join(' | ')} |`;
  });
  return [
    `| list | ${KS.map((k) => `HR@${k} of the viewed, %`).join(' | ')} |`,
    `|---|${KS.map(() => '---').join('|')}|`,
    ...rows,
    ...pairs,
  ];
}
