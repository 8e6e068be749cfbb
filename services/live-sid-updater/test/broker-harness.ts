/** One namespace on a real broker with the updater as a process of its own, and what it has published. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ItemSid, LiveSid, TopicName } from '@onemall/contracts';
import { connectKafka, type KafkaIo, type RecordWriter, type TypedRecord } from '@onemall/kafka-io';
import { FolderArtifactStore } from '@onemall/service-kit';
import { type SpawnedService, spawnService, TestNamespace, type TestStack, waitFor } from '@onemall/testkit';

const TOPICS: TopicName[] = [
  'items',
  'live-product-changes',
  'item-sids',
  'live-sids',
  'codebooks',
  'sid-metrics',
  'dead-letters',
];
const SCENARIOS = ['product_card', 'short_video', 'live_stream'];
const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };

export class Harness extends TestNamespace {
  readonly artifacts: FolderArtifactStore;
  liveSids: TypedRecord<'live-sids'>[] = [];
  itemSids: TypedRecord<'item-sids'>[] = [];
  codebooks: TypedRecord<'codebooks'>[] = [];
  deadLetters: TypedRecord<'dead-letters'>[] = [];
  metrics: TypedRecord<'sid-metrics'>[] = [];
  readonly #env: Record<string, string>;
  readonly #folder: string;
  readonly #services: SpawnedService[] = [];

  private constructor(kafka: KafkaIo, writer: RecordWriter, folder: string, env: Record<string, string>) {
    super(kafka, writer);
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
    const folder = await mkdtemp(path.join(tmpdir(), 'onemall-sids-'));
    const windows = { clickWindowMs: 4_000, buyWindowMs: RETENTION.largestWindowMs };
    const harness = new Harness(kafka, await kafka.openWriter(), folder, {
      ONEMALL_KAFKA_BROKERS: stack.brokers,
      ONEMALL_REGISTRY_URL: stack.registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_ARTIFACTS_URI: folder,
      ONEMALL_DATA_DIR: folder,
      ONEMALL_GRACE_MS: String(RETENTION.graceMs),
      ONEMALL_SCENARIOS: JSON.stringify(Object.fromEntries(SCENARIOS.map((s) => [s, windows]))),
      ONEMALL_MIN_ITEMS_FOR_CODEBOOK: '40',
      ONEMALL_BOOTSTRAP_QUIET_MS: '300',
      ONEMALL_SID_METRICS_EVERY_MS: '500',
      ...more,
    });
    harness.liveSids = await harness.follow('live-sids');
    harness.itemSids = await harness.follow('item-sids');
    harness.codebooks = await harness.follow('codebooks');
    harness.deadLetters = await harness.follow('dead-letters');
    harness.metrics = await harness.follow('sid-metrics');
    return harness;
  }

  async start(more: Record<string, string> = {}): Promise<SpawnedService> {
    const service = await spawnService('live-sid-updater', { ...this.#env, ...more });
    this.#services.push(service);
    try {
      await service.ready(60_000);
    } catch (error) {
      throw new Error(service.logTail(40), { cause: error });
    }
    return service;
  }

  /** Newest published value of a room in version 1. */
  room(liveId: string): LiveSid | null {
    return this.liveSids.findLast((record) => record.key === `${liveId}:1`)?.value ?? null;
  }
  item(itemId: string): ItemSid | null {
    return this.itemSids.findLast((record) => record.key === `${itemId}:1`)?.value ?? null;
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    await waitFor(condition, { what, timeoutMs: 30_000, intervalMs: 20 });
  }

  async stopServices(): Promise<void> {
    for (const service of this.#services.splice(0)) await service.stop();
  }
  async restart(): Promise<void> {
    await this.stopServices();
    await this.start();
  }

  override async close(): Promise<void> {
    await this.stopServices();
    await super.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
