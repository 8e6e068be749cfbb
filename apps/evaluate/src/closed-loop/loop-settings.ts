import type { EvaluationPlan } from '../world/log/plan.ts';

/** What all processes of the loop are told, in the file that ONEMALL_CONFIG names. */
export interface LoopSettings {
  file: string;
  brokers: string;
  registryUrl: string;
  namespace: string;
  artifacts: string;
  /** Folder of the database. */
  clickhouse: string;
  scenarios: EvaluationPlan['scenarios'];
  retention: { largestWindowMs: number; graceMs: number; longestOutageMs: number };
}
