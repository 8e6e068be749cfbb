import type { KafkaIo } from '@onemall/kafka-io';
import type { ArtifactStore, Clock, Logger } from '@onemall/service-kit';
import type { JobConfig } from '../config.ts';

export const JOB_NAMES = [
  'collect-pairs',
  'train-codebooks',
  'retokenize-catalogue',
  'retire-codebooks',
  'evaluate-hit-rate',
] as const;
export type JobName = (typeof JOB_NAMES)[number];

/** How far a job is, for whoever watches. */
export interface JobProgress {
  step: string;
  done: number;
  total: number;
}

export interface JobContext {
  /** The same in all attempts of one job. */
  jobId: string;
  config: JobConfig;
  kafka: KafkaIo;
  artifacts: ArtifactStore;
  clock: Clock;
  log: Logger;
  stopping: AbortSignal;
  progress(progress: JobProgress): Promise<void>;
  /** What attempts of this job have kept in Redis for those after them. */
  kept(): Record<string, unknown>;
  keep(more: Record<string, unknown>): Promise<void>;
}

/** One named run; what it returns is kept as the job's result. @throws what the next attempt may mend, or JobRefusedError */
export type RunJob = (context: JobContext) => Promise<Record<string, unknown>>;

/** A result that no further attempt changes: the job fails at once. */
export class JobRefusedError extends Error {
  override name = 'JobRefusedError';
}
