/** The A/B report of a closed loop in Markdown. */
import { signedPercent } from '../world/reports/policy-tables.ts';

/** A row of queries/policy-arms.sql. */
export interface ArmRow {
  arm: string;
  requests: number | string;
  ctr: number;
  orders_per_request: number;
  gmv_per_request: number;
  /** By measure: difference to base, low, high; empty for base itself. */
  against_base_low_high: Record<string, readonly number[]>;
}

export interface LoopFacts {
  plan: { hash: string; seed: number };
  warmUp: number;
  beam: number;
  /** Requests that an arm's items were shown for. */
  shown: number;
  /** Requests of an arm that no policy answered: the logging policy served them without a tag. */
  lost: number;
  /** Shown requests whose exposures had closed when the table was made. */
  closed: number;
}

const MEASURES = [
  ['ctr', 'ctr', 'CTR'],
  ['orders', 'orders_per_request', 'orders per request'],
  ['gmv', 'gmv_per_request', 'GMV per request'],
] as const;

export function armReport(
  { plan, warmUp, beam, shown, lost, closed }: LoopFacts,
  rows: readonly ArmRow[],
): string {
  const base = rows.find((row) => row.arm === 'base');
  const lines = rows.map((row) => {
    const cells = MEASURES.flatMap(([measure, column]) => {
      const [difference, low, high] = row.against_base_low_high[measure] ?? [];
      const own = row[column].toFixed(4);
      if (row.arm === 'logging' || !base || difference === undefined) return [own, ''];
      const relative = signedPercent(difference / base[column]);
      return [own, `${difference.toFixed(4)} (${low!.toFixed(4)} to ${high!.toFixed(4)}), ${relative}`];
    });
    return `| ${row.arm} | ${row.requests} | ${cells.join(' | ')} |`;
  });
  return [
    `World plan ${plan.hash}, seed ${plan.seed}: ${warmUp} requests of the logging policy, then ${shown} of the arms at beam ${beam} (${closed} closed, ${lost} without an answer). Differences to base with 95 % intervals over requests.`,
    '',
    `| arm | requests | ${MEASURES.map(([, , title]) => `${title} | against base`).join(' | ')} |`,
    `|---|---|${MEASURES.map(() => '---|---').join('|')}|`,
    ...lines,
  ].join('\n');
}
