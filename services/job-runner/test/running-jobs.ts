import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { TopicName } from '@onemall/contracts';
import { connectKafka } from '@onemall/kafka-io';
import { FolderArtifactStore } from '@onemall/service-kit';
import { spawnService, type TestStack } from '@onemall/testkit';

export const ENQUEUE = fileURLToPath(new URL('../src/enqueue.ts', import.meta.url));

/** A namespace of its own with a job-runner at work in it. */
export async function runningJobs(
  stack: TestStack,
  t: TestContext,
  topics: TopicName[],
  more: Record<string, string> = {},
) {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-jobs-'));
  const namespace = stack.newNamespace();
  const kafka = await connectKafka({
    brokers: stack.brokers,
    registryUrl: stack.registryUrl,
    namespace,
    clientId: 'test',
  });
  const retention = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };
  await kafka.createTopics(topics, { retention, numPartitions: 2 });
  await kafka.registerSchemas(topics);
  const env = {
    ONEMALL_KAFKA_BROKERS: stack.brokers,
    ONEMALL_REGISTRY_URL: stack.registryUrl,
    ONEMALL_REDIS_URL: stack.redisUrl!,
    ONEMALL_NAMESPACE: namespace,
    ONEMALL_ARTIFACTS_URI: folder,
    ONEMALL_MIN_ITEMS_FOR_CODEBOOK: '40',
    ONEMALL_JOB_BACKOFF_MS: '50',
    ONEMALL_HELD_BACK_FRACTION: '1',
    ONEMALL_TRAIN_CODEBOOKS_EVERY_MS: '0',
    ONEMALL_EVALUATE_HIT_RATE_EVERY_MS: '0',
    ...more,
  };
  const service = await spawnService('job-runner', env);
  t.after(async () => {
    await service.stop();
    await kafka.close();
    await rm(folder, { recursive: true, force: true });
  });
  await service.ready();
  const writer = await kafka.openWriter();
  return {
    kafka,
    service,
    writer,
    artifacts: new FolderArtifactStore(folder),
    /** For other services of the namespace. */
    env,
    /** `npm run job -- NAME` */
    enqueue: (name: string) =>
      new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
        execFile(
          process.execPath,
          [ENQUEUE, name],
          { env: { ...process.env, ...env } },
          (error, stdout, stderr) => resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
        );
      }),
  };
}
