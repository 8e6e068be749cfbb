/** A rollout's way to its durable reward batch: broker and reward-scorer are processes, the ranker is there before the first rollout. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Item, Rollout, TopicName } from '@onemall/contracts';
import { connectKafka } from '@onemall/kafka-io';
import { FolderArtifactStore } from '@onemall/service-kit';
import { spawnService, startTestStack, waitFor } from '@onemall/testkit';

const TOPICS: TopicName[] = [
  'items',
  'live-sids',
  'policy-versions',
  'rollouts',
  'reward-batches',
  'dead-letters',
];
const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };
const WINDOWS = { clickWindowMs: 4_000, buyWindowMs: 8_000 };
/** The first ones find code that is not compiled yet. */
const WARM_UP = 20;
const PATIENCE_MS = 90_000;
const ITEMS_AT_ONCE = 5_000;

export interface Durable {
  perS: number;
  rollouts: number;
  /** From the rollout's creation until a reader of reward-batches has the batch. */
  p50Ms: number;
  p99Ms: number;
}

/** @param rolloutOf candidates and history of the n-th */
export async function rolloutToDurable(
  files: ReadonlyMap<string, Uint8Array>,
  items: readonly Item[],
  rolloutOf: (n: number) => Rollout,
  { perS, seconds }: { perS: number; seconds: number },
): Promise<Durable> {
  const stack = await startTestStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-bench-scorer-'));
  const { brokers, registryUrl } = stack;
  const namespace = stack.newNamespace();
  const kafka = await connectKafka({ brokers, registryUrl, namespace, clientId: 'bench' });
  let scorer: Awaited<ReturnType<typeof spawnService>> | undefined;
  try {
    await kafka.createTopics(TOPICS, { retention: RETENTION, numPartitions: 2 });
    await kafka.registerSchemas(TOPICS);
    const writer = await kafka.openWriter();
    for (let at = 0; at < items.length; at += ITEMS_AT_ONCE)
      await writer.send(
        items
          .slice(at, at + ITEMS_AT_ONCE)
          .map((value) => ({ topic: 'items' as const, key: value.itemId, value })),
      );
    const ref = await new FolderArtifactStore(folder).put('policies/ranker/1', files);
    const value = {
      ...{ model: 'RANKER' as const, policyVersion: '1-bench', ...ref, step: 1, codebookVersions: {} },
      ...{ metrics: {}, createdMs: 0 },
    };
    await writer.send([{ topic: 'policy-versions', key: 'RANKER', value }]);
    const latenciesMs = new Map<string, number>();
    await kafka.openTable({
      topic: 'reward-batches',
      onRecord: ({ key, value: batch }) => {
        if (batch) latenciesMs.set(key, Date.now() - batch.rolloutCreatedMs);
      },
      onError: (error) => console.error(error),
    });
    scorer = await spawnService('reward-scorer', {
      ONEMALL_KAFKA_BROKERS: brokers,
      ONEMALL_REGISTRY_URL: registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_ARTIFACTS_URI: folder,
      ONEMALL_DATA_DIR: folder,
      ONEMALL_SCENARIOS: JSON.stringify({ product_card: WINDOWS }),
    });
    await scorer.ready(PATIENCE_MS);
    let sent = 0;
    const send = async (): Promise<void> => {
      const rollout = { ...rolloutOf(sent), requestId: `request-${sent++}`, createdMs: Date.now() };
      await writer.send([{ topic: 'rollouts', key: rollout.requestId, value: rollout }]);
    };
    const scored = (count: number) =>
      waitFor(() => latenciesMs.size >= count, { timeoutMs: PATIENCE_MS, what: 'all rollouts to be scored' });
    for (let n = 0; n < WARM_UP; n++) await send();
    await scored(sent);
    latenciesMs.clear();
    const warm = sent;
    const beginMs = performance.now();
    const sends: Promise<void>[] = [];
    for (let n = 0; n < perS * seconds; n++) {
      const waitMs = beginMs + (1000 * n) / perS - performance.now();
      if (waitMs > 0) await delay(waitMs);
      sends.push(send());
    }
    await Promise.all(sends);
    await scored(sent - warm);
    const sorted = [...latenciesMs.values()].sort((a, b) => a - b);
    const at = (share: number): number =>
      sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
    await writer.close();
    return { perS, rollouts: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99) };
  } finally {
    await scorer?.stop();
    await kafka.close();
    await stack.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
