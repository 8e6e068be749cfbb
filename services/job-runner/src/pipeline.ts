/**
 * consumes        jobs of the BullMQ queue, one at a time; each job reads the topics it needs to their ends
 * produces        codebooks (train-codebooks), retrieval-metrics (evaluate-hit-rate), results and progress in Redis
 * waits for       a job, by hand or by schedule
 * is unblocked by the queue
 * commits when    a job has returned: a crash gives the job to the next worker, which runs it from its beginning
 */
import type { KafkaIo } from '@onemall/kafka-io';
import type { RunningService, ServiceContext } from '@onemall/service-kit';
import { type Job, UnrecoverableError, Worker } from 'bullmq';
import { openQueue, QUEUE_NAME, queuePrefix, schedule } from './adapters/queue.ts';
import { redisConnection } from './adapters/redis.ts';
import type { JobConfig } from './config.ts';
import { collectPairs } from './jobs/collect-pairs.ts';
import { evaluateHitRate } from './jobs/evaluate-hit-rate.ts';
import { JOB_NAMES, type JobName, JobRefusedError, type RunJob } from './jobs/job.ts';
import { retireCodebooks } from './jobs/retire-codebooks.ts';
import { retokenizeCatalogue } from './jobs/retokenize-catalogue.ts';
import { trainCodebooks } from './jobs/train-codebooks.ts';

const JOBS: Record<JobName, RunJob> = {
  'collect-pairs': collectPairs,
  'train-codebooks': trainCodebooks,
  'retokenize-catalogue': retokenizeCatalogue,
  'retire-codebooks': retireCodebooks,
  'evaluate-hit-rate': evaluateHitRate,
};

export async function startPipeline(
  context: ServiceContext<JobConfig>,
  kafka: KafkaIo,
  jobs: Record<string, RunJob> = JOBS,
): Promise<RunningService> {
  const { config, clock, log, meter, artifacts, stopping } = context;

  async function run(job: Job): Promise<Record<string, unknown>> {
    const runJob = jobs[job.name];
    if (!runJob)
      throw new UnrecoverableError(`No job is called ${job.name}: known are ${JOB_NAMES.join(', ')}`);
    const startedMs = clock.nowMs();
    meter.recordIn();
    log.info({ job: job.name, id: job.id, attempt: job.attemptsMade + 1 }, 'job started');
    try {
      const result = await runJob({
        jobId: job.id ?? job.name,
        config,
        kafka,
        artifacts,
        clock,
        log,
        stopping,
        progress: (progress) => job.updateProgress({ ...progress }),
        kept: () => job.data as Record<string, unknown>,
        keep: (more) => job.updateData({ ...(job.data as object), ...more }),
      });
      meter.recordOut();
      meter.recordLatency(clock.nowMs() - startedMs);
      meter.add('jobs_done');
      return result;
    } catch (error) {
      meter.add('jobs_failed');
      if (error instanceof JobRefusedError) throw new UnrecoverableError(error.message);
      throw error;
    }
  }

  const queue = openQueue(config);
  await schedule(queue, config, clock.nowMs());
  const worker = new Worker(QUEUE_NAME, run, {
    connection: redisConnection(config.redisUrl),
    prefix: queuePrefix(config.namespace),
    concurrency: 1,
  });
  worker.on('completed', (job) =>
    log.info({ job: job.name, id: job.id, result: job.returnvalue }, 'job done'),
  );
  worker.on('failed', (job, error) =>
    log.error({ job: job?.name, id: job?.id, attempt: job?.attemptsMade, err: error }, 'job failed'),
  );
  // Redis that is away is waited for; the client reconnects by itself.
  worker.on('error', (error) => log.warn({ err: error }, 'the queue does not answer'));
  queue.on('error', (error) => log.warn({ err: error }, 'the queue does not answer'));
  await worker.waitUntilReady();

  return {
    stop: async () => {
      await worker.close();
      await queue.close();
    },
  };
}
