/** A namespace with a small catalogue and the services of the pipeline as processes, each started when a test asks for it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  type Codebook,
  type Item,
  type LiveSid,
  TOPICS,
  type TopicName,
  type TopicValues,
} from '@onemall/contracts';
import { connectKafka, type KafkaIo, type RecordWriter, type TypedRecord } from '@onemall/kafka-io';
import { createRetrievalTrainer } from '@onemall/learning';
import { FolderArtifactStore } from '@onemall/service-kit';
import {
  type SpawnedService,
  spawnService,
  TestNamespace,
  type TestStack,
  vectorOf,
  waitFor,
} from '@onemall/testkit';

const WINDOWS = { clickWindowMs: 2_000, buyWindowMs: 4_000 };
const RETENTION = { largestWindowMs: 4_000, graceMs: 500, longestOutageMs: 1_000 };
const PATIENCE_MS = 120_000;

export const productItem = (n: number, more: Partial<Item> = {}): Item => ({
  itemId: `p${n}`,
  scenario: 'product_card',
  validFromMs: 1_000,
  title: `product ${n}`,
  category: `c${n % 5}`,
  tags: [],
  priceCents: 100 + n,
  sellerId: `s${n % 3}`,
  productId: null,
  contentVideo: false,
  embedding: vectorOf(n),
  ...more,
});

export interface SceneOptions {
  scenarios: readonly string[];
  numPartitions?: number;
  env?: Record<string, string>;
}

export class PipelineScene extends TestNamespace {
  readonly artifacts: FolderArtifactStore;
  readonly env: Record<string, string>;
  readonly scenarios: readonly string[];
  readonly #folder: string;
  readonly #services: SpawnedService[] = [];

  private constructor(
    kafka: KafkaIo,
    writer: RecordWriter,
    folder: string,
    scenarios: readonly string[],
    env: Record<string, string>,
  ) {
    super(kafka, writer);
    this.artifacts = new FolderArtifactStore(path.join(folder, 'artifacts'));
    this.#folder = folder;
    this.scenarios = scenarios;
    this.env = env;
  }

  static async create(stack: TestStack, options: SceneOptions): Promise<PipelineScene> {
    const namespace = stack.newNamespace();
    const { brokers, registryUrl } = stack;
    const kafka = await connectKafka({ brokers, registryUrl, namespace, clientId: 'scene' });
    const names = TOPICS.map((topic) => topic.name);
    await kafka.createTopics(names, { retention: RETENTION, numPartitions: options.numPartitions ?? 1 });
    await kafka.registerSchemas(names);
    const folder = await mkdtemp(path.join(tmpdir(), 'onemall-scene-'));
    return new PipelineScene(kafka, await kafka.openWriter(), folder, options.scenarios, {
      ONEMALL_KAFKA_BROKERS: brokers,
      ONEMALL_REGISTRY_URL: registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_ARTIFACTS_URI: path.join(folder, 'artifacts'),
      ONEMALL_SCENARIOS: JSON.stringify(Object.fromEntries(options.scenarios.map((s) => [s, WINDOWS]))),
      ONEMALL_GRACE_MS: '500',
      ONEMALL_LONGEST_OUTAGE_MS: '1000',
      ONEMALL_MIN_ITEMS_FOR_CODEBOOK: '40',
      ONEMALL_BOOTSTRAP_QUIET_MS: '300',
      ONEMALL_SID_METRICS_EVERY_MS: '200',
      // The watermark moves with events alone: a test that waits for something does not make what it sends next late.
      ONEMALL_MAX_DELAY_MS: '3600000',
      ONEMALL_RETRIEVER_PORT: '0',
      ONEMALL_TRAINER_PRESET: 'tiny',
      ...options.env,
    });
  }

  /** @param name a folder of services/ */
  async start(name: string, more: Record<string, string> = {}): Promise<SpawnedService> {
    const dataDir = path.join(this.#folder, more.ONEMALL_DATA_DIR ?? name);
    const service = await spawnService(name, { ...this.env, ...more, ONEMALL_DATA_DIR: dataDir });
    this.#services.push(service);
    await service.ready(PATIENCE_MS);
    return service;
  }

  async until(what: string, condition: () => unknown): Promise<void> {
    await waitFor(condition, {
      what,
      timeoutMs: PATIENCE_MS,
      intervalMs: 50,
    }).catch((error: Error) => {
      const logs = this.#services.map((service) => `${service.logFile}\n${service.logTail(12)}`);
      throw new Error(`${error.message}\n${logs.join('\n---\n')}`, { cause: error });
    });
  }

  /** A policy with random weights on these codebooks, published as the trainer does. */
  async publishPolicy(codebooks: readonly Codebook[], step = 1): Promise<void> {
    const numCodes = Object.fromEntries(
      codebooks.map((c) => [c.scenario, c.numCodes as [number, number, number]]),
    );
    const codebookVersions = Object.fromEntries(codebooks.map((c) => [c.scenario, c.codebookVersion]));
    const policyVersion = `${step}-random`;
    const trainer = await createRetrievalTrainer({
      preset: 'tiny',
      scenarios: [...this.scenarios].sort(),
      numCodes,
      seed: step,
    });
    const files = await trainer.exportPolicy({ policyVersion, codebookVersions, beamWidths: [16] });
    await trainer.close();
    const ref = await this.artifacts.put(`policies/retriever/${policyVersion}`, files);
    const value = {
      ...{ model: 'RETRIEVER' as const, policyVersion, ...ref, step, codebookVersions },
      ...{ metrics: {}, createdMs: 0 },
    };
    await this.writer.send([{ topic: 'policy-versions', key: 'RETRIEVER', value }]);
  }

  override async close(): Promise<void> {
    for (const service of this.#services.reverse()) await service.kill();
    await super.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export interface RetrieveReply {
  status: number;
  body: {
    error?: string;
    policyVersion?: string;
    codebookVersion?: number;
    items?: { itemId: string; sid: { c1: number; c2: number; c3: number } }[];
  };
}

/** Asks a retriever that stands for the first items of a scenario. */
export async function retrieve(service: SpawnedService, scenario: string, k = 16): Promise<RetrieveReply> {
  const port = await gauge(service, 'retriever_port');
  if (!port) return { status: 0, body: {} };
  const response = await fetch(`http://127.0.0.1:${port}/retrieve`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ scenario, history: {}, k, beamWidth: 16 }),
  });
  return { status: response.status, body: (await response.json()) as RetrieveReply['body'] };
}

/** A value of /status; 0 where there is none, null while the service is too busy to answer. */
export const gauge = async (service: SpawnedService, name: string): Promise<number | null> =>
  service.status().then(
    ({ values }) => values[name] ?? 0,
    () => null,
  );

/** Newest value of a key. */
export const newest = <T extends TopicName>(
  records: readonly TypedRecord<T>[],
  key: string,
): TopicValues[T] | null => records.findLast((record) => record.key === key)?.value ?? null;

export const codesOf = (
  sid: { c1: number; c2: number; c3: number } | LiveSid['sid'] | null | undefined,
): number[] | null => (sid ? [sid.c1, sid.c2, sid.c3] : null);
