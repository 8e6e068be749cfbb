/** A namespace on a real broker, a small catalogue with SIDs, tiny real policies, and the retriever as a process of its own. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type {
  Exposure,
  Item,
  LiveSid,
  PolicyVersion,
  SampleKind,
  Sid,
  TopicName,
  TrainingSample,
  UserHistory,
} from '@onemall/contracts';
import { connectKafka, type KafkaIo, type RecordWriter, type TypedRecord } from '@onemall/kafka-io';
import { createRetrievalTrainer } from '@onemall/learning';
import { FolderArtifactStore } from '@onemall/service-kit';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';

const TOPICS: TopicName[] = [
  'items',
  'item-sids',
  'live-sids',
  'policy-versions',
  'training-samples',
  'rollouts',
  'retrieval-metrics',
  'dead-letters',
];
export const NUM_CODES = { product_card: [8, 8, 8], live_stream: [4, 4, 4] } as const;
const SCENARIOS = Object.keys(NUM_CODES);
const WINDOWS = { clickWindowMs: 4_000, buyWindowMs: 8_000 };
const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };
export const NO_HISTORY: UserHistory = { exposures: [], clicks: [], buys: [] };
export const NUM_ITEMS = 60;

export const itemSidOf = (n: number): Sid => ({
  scenario: 'product_card',
  codebookVersion: 1,
  c1: n % 8,
  c2: (n >> 1) % 8,
  c3: n % 5,
});

export interface RetrieveReply {
  status: number;
  body: { error?: string; policyVersion?: string; items?: { itemId: string; sid: object; score: number }[] };
}

export class Harness {
  readonly kafka: KafkaIo;
  readonly writer: RecordWriter;
  readonly artifacts: FolderArtifactStore;
  readonly rollouts: TypedRecord<'rollouts'>[] = [];
  readonly metrics: TypedRecord<'retrieval-metrics'>[] = [];
  readonly deadLetters: TypedRecord<'dead-letters'>[] = [];
  readonly #env: Record<string, string>;
  readonly #folder: string;
  readonly #services: SpawnedService[] = [];
  #service: SpawnedService | undefined;

  private constructor(kafka: KafkaIo, writer: RecordWriter, folder: string, env: Record<string, string>) {
    this.kafka = kafka;
    this.writer = writer;
    this.artifacts = new FolderArtifactStore(folder);
    this.#folder = folder;
    this.#env = env;
  }

  static async create(stack: TestStack, more: Record<string, string> = {}): Promise<Harness> {
    const namespace = stack.newNamespace();
    const kafka = await connectKafka({
      brokers: stack.brokers,
      registryUrl: stack.registryUrl,
      namespace,
      clientId: 'test',
    });
    await kafka.createTopics(TOPICS, { retention: RETENTION, numPartitions: 2 });
    await kafka.registerSchemas(TOPICS);
    const folder = await mkdtemp(path.join(tmpdir(), 'onemall-retriever-'));
    const harness = new Harness(kafka, await kafka.openWriter(), folder, {
      ONEMALL_KAFKA_BROKERS: stack.brokers,
      ONEMALL_REGISTRY_URL: stack.registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_ARTIFACTS_URI: folder,
      ONEMALL_DATA_DIR: folder,
      ONEMALL_SCENARIOS: JSON.stringify(Object.fromEntries(SCENARIOS.map((s) => [s, WINDOWS]))),
      ONEMALL_RETRIEVER_PORT: '0',
      ONEMALL_RETRIEVE_BEAM: '16',
      ONEMALL_RETRIEVE_QUEUE: '1000',
      ONEMALL_ROLLOUT_SHARE: '1',
      ONEMALL_ROLLOUT_BUDGET_PER_S: '1000',
      ONEMALL_ROLLOUT_CANDIDATES: '12',
      ONEMALL_HELD_BACK_FRACTION: '0.3',
      ONEMALL_HIT_RATE_BUDGET_PER_S: '1000',
      ONEMALL_HIT_RATE_BEAM: '16',
      ONEMALL_REFERENCE_SYNC_STEPS: '1',
      ONEMALL_RETRIEVAL_METRICS_MS: '300',
      ...more,
    });
    const follow = <T extends TopicName>(topic: T, into: TypedRecord<T>[]) =>
      kafka.openTable({
        topic,
        onRecord: (record) => void into.push(record),
        onError: (error) => console.error(error),
      });
    await follow('rollouts', harness.rollouts);
    await follow('retrieval-metrics', harness.metrics);
    await follow('dead-letters', harness.deadLetters);
    return harness;
  }

  /** Product cards with SIDs, several of them on one. */
  async putCatalogue(): Promise<void> {
    for (let n = 0; n < NUM_ITEMS; n++) await this.putItem(n);
  }
  async putItem(n: number): Promise<void> {
    const itemId = `item-${n}`;
    const item: Item = {
      itemId,
      scenario: 'product_card',
      validFromMs: n,
      title: itemId,
      category: `c${n % 3}`,
      tags: [],
      priceCents: 100 + n,
      sellerId: 's',
      productId: null,
      contentVideo: false,
      embedding: null,
    };
    const sid = { itemId, sid: itemSidOf(n), validFromMs: 0, reason: 'NEW_ITEM', createdMs: 0 } as const;
    await this.writer.send([
      { topic: 'items', key: itemId, value: item },
      { topic: 'item-sids', key: `${itemId}:1`, value: sid },
    ]);
  }
  async putRoom(liveId: string, sid: [number, number, number] | null): Promise<void> {
    const [c1, c2, c3] = sid ?? [0, 0, 0];
    const value: LiveSid = {
      liveId,
      sid: sid && { scenario: 'live_stream', codebookVersion: 1, c1, c2, c3 },
      validFromMs: 0,
      reason: 'PRODUCT_CHANGE',
      sellingItemIds: sid ? ['item-1'] : [],
      explainingItemId: null,
      sourcePartition: 0,
      sourceOffset: 0,
      createdMs: 0,
    };
    await this.writer.send([{ topic: 'live-sids', key: `${liveId}:1`, value }]);
  }

  /** A real policy with random weights. */
  async publishPolicy(step: number, tamper?: (folder: string) => Promise<void>): Promise<PolicyVersion> {
    const policyVersion = `${step}-test`;
    const trainer = await createRetrievalTrainer({
      preset: 'tiny',
      scenarios: SCENARIOS,
      numCodes: NUM_CODES,
      seed: step,
    });
    const codebookVersions = { product_card: 1, live_stream: 1 };
    const files = await trainer.exportPolicy({ policyVersion, codebookVersions, beamWidths: [8, 16] });
    await trainer.close();
    const ref = await this.artifacts.put(`policies/retriever/${step}`, files);
    await tamper?.(path.join(this.#folder, ref.uri));
    const value: PolicyVersion = {
      model: 'RETRIEVER',
      policyVersion,
      ...ref,
      step,
      codebookVersions,
      metrics: {},
      createdMs: Date.now(),
    };
    await this.writer.send([{ topic: 'policy-versions', key: 'RETRIEVER', value }]);
    return value;
  }

  async putSample(
    n: number,
    exposure: Partial<Exposure> = {},
    {
      requestId = `request-${n}`,
      kind = 'FINAL' as SampleKind,
      nowMs = Date.now(),
      timestampMs = Date.now(),
    } = {},
  ): Promise<void> {
    const userId = `user-${n % 7}`;
    const value: TrainingSample = {
      exposure: {
        exposureId: `${requestId}-${n}`,
        userId,
        itemId: `item-${n % NUM_ITEMS}`,
        scenario: 'product_card',
        eventTimeMs: nowMs - 100,
        requestId,
        requestTimeMs: nowMs - 150,
        position: 0,
        watchMs: null,
        priceCents: 100,
        requestFeatures: { ints: [], floats: [] },
        ...exposure,
      },
      kind,
      firstPositive: false,
      clicked: true,
      clickDelayMs: 5,
      bought: false,
      buyDelayMs: null,
      buyValueCents: 0,
      buyQuantity: 0,
      sid: itemSidOf(n % NUM_ITEMS),
      item: null,
      history: {
        exposures: [{ itemId: 'item-2', eventTimeMs: nowMs - 9_000, category: 'c2' }],
        clicks: [{ itemId: 'item-2', eventTimeMs: nowMs - 8_000, category: 'c2' }],
        buys: [],
      },
      watermarkMs: nowMs,
    };
    await this.writer.send([{ topic: 'training-samples', key: userId, value, timestampMs }]);
  }

  async start(more: Record<string, string> = {}): Promise<SpawnedService> {
    this.#service = await spawnService('retriever', { ...this.#env, ...more });
    this.#services.push(this.#service);
    await this.#service.ready();
    return this.#service;
  }

  async value(name: string): Promise<number> {
    return (await this.#service!.status()).values[name] ?? 0;
  }
  untilValue(name: string, atLeast: number): Promise<unknown> {
    return this.until(`${name} >= ${atLeast}`, async () => (await this.value(name)) >= atLeast);
  }

  async retrieve(more: object = {}): Promise<RetrieveReply> {
    const port = await this.value('retriever_port');
    const response = await fetch(`http://127.0.0.1:${port}/retrieve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ scenario: 'product_card', history: NO_HISTORY, k: 5, ...more }),
    });
    return { status: response.status, body: (await response.json()) as RetrieveReply['body'] };
  }

  until<T>(what: string, condition: () => T | Promise<T>): Promise<unknown> {
    return waitFor(condition, {
      what: `${what}; the service's log ends with:\n${this.#service?.logTail(15)}`,
      timeoutMs: 60_000,
    });
  }

  async close(): Promise<void> {
    for (const service of this.#services) await service.kill().catch(() => {});
    await this.kafka.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
