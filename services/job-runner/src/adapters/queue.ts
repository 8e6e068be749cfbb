/** The BullMQ queue of all jobs: one name, a prefix per namespace, the same options whoever adds a job. */
import { type JobsOptions, Queue } from 'bullmq';
import type { JobConfig } from '../config.ts';
import type { JobName } from '../jobs/job.ts';
import { redisConnection } from './redis.ts';

export const QUEUE_NAME = 'jobs';
export const queuePrefix = (namespace: string): string => `{${namespace}}`;

export function jobOptions(config: JobConfig): JobsOptions {
  return {
    attempts: config.jobAttempts,
    backoff: { type: 'exponential', delay: config.jobBackoffMs },
    removeOnComplete: { count: config.keepJobs },
    removeOnFail: { count: config.keepJobs },
  };
}

export function openQueue(config: JobConfig): Queue {
  return new Queue(QUEUE_NAME, {
    connection: redisConnection(config.redisUrl),
    prefix: queuePrefix(config.namespace),
    defaultJobOptions: jobOptions(config),
  });
}

/** Brings the schedules in Redis up to the configuration; 0 takes one away. */
export async function schedule(queue: Queue, config: JobConfig, nowMs: number): Promise<void> {
  const every: Record<JobName, number> = {
    'collect-pairs': config.collectPairsEveryMs,
    'train-codebooks': config.trainCodebooksEveryMs,
    // By hand: who changes nothing has nothing to tokenize again.
    'retokenize-catalogue': 0,
    'retire-codebooks': 0,
    'evaluate-hit-rate': config.evaluateHitRateEveryMs,
  };
  for (const [name, everyMs] of Object.entries(every)) {
    const id = `every-${name}`;
    if (everyMs === 0) await queue.removeJobScheduler(id);
    // The first run comes after one period, not at every start.
    else
      await queue.upsertJobScheduler(
        id,
        { every: everyMs, startDate: nowMs + everyMs },
        { name, data: {}, opts: jobOptions(config) },
      );
  }
}
