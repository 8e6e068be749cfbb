/** `npm run job -- NAME`: adds one job to the running pipeline's queue and shows how it goes. */
import { ConfigError } from '@onemall/service-kit';
import { QueueEvents } from 'bullmq';
import { openQueue, QUEUE_NAME, queuePrefix } from './adapters/queue.ts';
import { RedisAwayError, redisConnection, requireRedis } from './adapters/redis.ts';
import { readConfig } from './config.ts';
import { JOB_NAMES, type JobName, type JobProgress } from './jobs/job.ts';

const USAGE = `npm run job -- ${JOB_NAMES.join('|')}`;
/** Says what would be done, and does nothing. */
const DRY_RUN = '--dry-run';
const WITH_DRY_RUN: JobName = 'retire-codebooks';

async function main(): Promise<number> {
  const [name, ...flags] = process.argv.slice(2);
  if (!JOB_NAMES.includes(name as JobName)) {
    console.error(name === undefined ? USAGE : `No job is called ${name}. ${USAGE}`);
    return 2;
  }
  const dryRun = flags.includes(DRY_RUN) && name === WITH_DRY_RUN;
  if (flags.length > (dryRun ? 1 : 0)) {
    console.error(`${name} takes no ${flags.join(' ')}: only ${WITH_DRY_RUN} has a flag, ${DRY_RUN}`);
    return 2;
  }
  const config = readConfig();
  await requireRedis(config.redisUrl);
  const queue = openQueue(config);
  const events = new QueueEvents(QUEUE_NAME, {
    connection: redisConnection(config.redisUrl),
    prefix: queuePrefix(config.namespace),
  });
  try {
    await events.waitUntilReady();
    if ((await queue.getWorkersCount()) === 0)
      console.error('No job-runner is at work: the job waits until one starts (npm start).');
    const job = await queue.add(name!, dryRun ? { dryRun } : {});
    console.log(`job ${job.id} ${name}`);
    events.on('progress', ({ jobId, data }) => {
      if (jobId !== job.id) return;
      const { step, done, total } = data as unknown as JobProgress;
      console.log(`  ${step} ${done}/${total}`);
    });
    console.log(JSON.stringify(await job.waitUntilFinished(events), null, 2));
    return 0;
  } catch (error) {
    console.error(`${name} failed: ${(error as Error).message}`);
    return 1;
  } finally {
    await events.close();
    await queue.close();
  }
}

process.exitCode = await main().catch((error: unknown) => {
  if (!(error instanceof RedisAwayError || error instanceof ConfigError)) throw error;
  console.error(error.message);
  return 2;
});
