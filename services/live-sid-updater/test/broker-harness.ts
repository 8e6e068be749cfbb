/** One namespace on a real broker with the updater as a process of its own, and what it has published. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Item, ItemSid, LiveSid, ProductChange, ProductChangeKind, TopicName } from '@onemall/contracts';
import { connectKafka, type KafkaIo, type RecordWriter, type TypedRecord } from '@onemall/kafka-io';
import { FolderArtifactStore } from '@onemall/service-kit';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';

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

export class Harness {
  readonly kafka: KafkaIo;
  readonly writer: RecordWriter;
  readonly artifacts: FolderArtifactStore;
  readonly liveSids: TypedRecord<'live-sids'>[] = [];
  readonly itemSids: TypedRecord<'item-sids'>[] = [];
  readonly codebooks: TypedRecord<'codebooks'>[] = [];
  readonly deadLetters: TypedRecord<'dead-letters'>[] = [];
  readonly metrics: TypedRecord<'sid-metrics'>[] = [];
  readonly #env: Record<string, string>;
  readonly #folder: string;
  readonly #services: SpawnedService[] = [];
  #changes = 0;

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
    const follow = <T extends TopicName>(topic: T, into: TypedRecord<T>[]) =>
      kafka.openTable({
        topic,
        onRecord: (record) => void into.push(record),
        onError: (error) => console.error(error),
      });
    await follow('live-sids', harness.liveSids);
    await follow('item-sids', harness.itemSids);
    await follow('codebooks', harness.codebooks);
    await follow('dead-letters', harness.deadLetters);
    await follow('sid-metrics', harness.metrics);
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

  async put(...items: Item[]): Promise<void> {
    await this.writer.send(items.map((value) => ({ topic: 'items', key: value.itemId, value })));
  }

  async change(
    liveId: string,
    kind: ProductChangeKind,
    itemId: string | null,
    eventTimeMs: number,
  ): Promise<void> {
    const value: ProductChange = { changeId: `c${++this.#changes}`, liveId, kind, itemId, eventTimeMs };
    await this.writer.send([{ topic: 'live-product-changes', key: liveId, value }]);
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

  async close(): Promise<void> {
    await this.stopServices();
    await this.writer.close();
    await this.kafka.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
