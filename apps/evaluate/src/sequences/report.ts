/** Tables of a study: means over the seeds, with their spread. */
import type { ListResult } from './rank-lists.ts';
import { METRICS, PROTOCOLS, type Protocol } from './stages/rank-metrics.ts';
import type { RunResult } from './study.ts';

export interface TableRow {
  row: string;
  list: string;
  protocol: Protocol;
  seeds: number[];
  /** Means over the seeds, on the test items, in the order of METRICS; and the validation's R@10. */
  test: number[];
  validation: number;
  /** Standard deviation of the test's R@10 over the seeds; 0 for one. */
  spread: number;
  cpuMinutes: number;
  parameters: number;
}

export function tableOf(results: readonly RunResult[]): TableRow[] {
  const rows: TableRow[] = [];
  for (const [row, runs] of Map.groupBy(results, (r) => r.row))
    for (const list of Object.keys(runs[0]!.lists))
      for (const protocol of PROTOCOLS) {
        const of = (pick: (list: ListResult) => number) => runs.map((run) => pick(run.lists[list]!));
        const recall = of((l) => l.test[protocol]['R@10']);
        rows.push({
          row,
          list,
          protocol,
          seeds: runs.map((r) => r.seed),
          test: METRICS.map((metric) => mean(of((l) => l.test[protocol][metric]))),
          validation: mean(of((l) => l.validation[protocol]['R@10'])),
          spread: deviation(recall),
          cpuMinutes: mean(runs.map((r) => r.trainCpuSeconds / 60)),
          parameters: runs[0]!.parameters,
        });
      }
  return rows;
}

/** The table in Markdown, which a terminal shows as well. */
export function markdown(rows: readonly TableRow[]): string {
  const lines = [
    `| model | list | earlier items | ${METRICS.join(' | ')} | sd of R@10 | validation R@10 | seeds | training, CPU min | parameters |`,
    `|---|---|---|${METRICS.map(() => '---|').join('')}---|---|---|---|---|`,
    ...rows.map((r) =>
      [
        '',
        r.row,
        r.list,
        r.protocol,
        ...r.test.map(share),
        r.seeds.length > 1 ? share(r.spread) : '-',
        share(r.validation),
        r.seeds.join(' '),
        r.cpuMinutes.toFixed(1),
        `${(r.parameters / 1e6).toFixed(2)} M`,
        '',
      ]
        .join(' | ')
        .trim(),
    ),
  ];
  return `${lines.join('\n')}\n`;
}

const share = (value: number): string => value.toFixed(4).replace(/^0/, '');

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (values.length - 1));
}
