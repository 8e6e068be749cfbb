/** A namespace of its own on the test broker, with traffic, instances of the service and the oracle. */
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TopicName } from '@onemall/contracts';
import {
  type AnyOutRecord,
  connectKafka,
  type KafkaIo,
  type RecordWriter,
  type TypedRecord,
} from '@onemall/kafka-io';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';
import { readTopic } from '../oracle/dump.ts';
import type { Verdict } from '../oracle/verify.ts';
import { type Arrival, GRACE_MS, OUT_OF_ORDERNESS_MS, SCENARIOS } from './traffic.ts';

export const TOPICS_USED = [
  'exposures',
  'clicks',
  'buys',
  'items',
  'item-sids',
  'live-sids',
  'training-samples',
  'late-events',
  'dead-letters',
] as const satisfies readonly TopicName[];
export const RETENTION = { largestWindowMs: 5_000, graceMs: GRACE_MS, longestOutageMs: 1_000 };
const ORACLE = path.join(import.meta.dirname, '../oracle/verify.ts');

export class Scene {
  readonly env: Record<string, string>;
  readonly io: KafkaIo;
  readonly writer: RecordWriter;
  #instances: SpawnedService[] = [];

  private constructor(env: Record<string, string>, io: KafkaIo, writer: RecordWriter) {
    this.env = env;
    this.io = io;
    this.writer = writer;
  }

  static async create(stack: TestStack, options: { createTopics?: boolean } = {}): Promise<Scene> {
    const namespace = stack.newNamespace();
    const io = await connectKafka({
      brokers: stack.brokers,
      registryUrl: stack.registryUrl,
      namespace,
      clientId: 'scene',
    });
    if (options.createTopics !== false)
      await io.createTopics(TOPICS_USED, { retention: RETENTION, numPartitions: 4 });
    await io.registerSchemas(TOPICS_USED);
    const env = {
      ONEMALL_KAFKA_BROKERS: stack.brokers,
      ONEMALL_REGISTRY_URL: stack.registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_SCENARIOS: JSON.stringify(SCENARIOS),
      ONEMALL_GRACE_MS: String(GRACE_MS),
      ONEMALL_OUT_OF_ORDERNESS_MS: String(OUT_OF_ORDERNESS_MS),
      ONEMALL_LONGEST_OUTAGE_MS: '1000',
      ONEMALL_HISTORY_LENGTH: '20',
      ONEMALL_SESSION_TIMEOUT_MS: '6000',
      ONEMALL_ARTIFACTS_URI: path.join(tmpdir(), `onemall-scene-${namespace}`),
      ONEMALL_SNAPSHOT_MS: '2000',
    };
    return new Scene(env, io, await io.openWriter());
  }

  async startInstance(more: Record<string, string> = {}): Promise<SpawnedService> {
    const instance = await spawnService('sample-assembler', { ...this.env, ...more });
    this.#instances.push(instance);
    return instance;
  }

  /** Items with a price change, their SIDs, and live rooms whose products change. */
  async sendCatalogue(startMs: number): Promise<void> {
    const records: AnyOutRecord[] = [];
    for (let i = 1; i < 15; i++) {
      const itemId = `item-${i}`;
      for (const [version, validFromMs] of [0, startMs + 500 * i].entries()) {
        const sid = { scenario: 'product_card', codebookVersion: 1, c1: i, c2: version, c3: 7 };
        records.push({
          topic: 'items',
          key: itemId,
          value: {
            itemId,
            scenario: 'product_card',
            validFromMs,
            title: itemId,
            category: `category-${(i + version) % 4}`,
            tags: ['new', `tag-${version}`],
            priceCents: 100 * i + version,
            sellerId: `seller-${i % 3}`,
            productId: null,
            contentVideo: false,
            embedding: null,
          },
        });
        if (i % 5 === 0)
          records.push({
            topic: 'live-sids',
            key: `${itemId}:1`,
            value: {
              liveId: itemId,
              sid: version === 0 ? null : sid,
              validFromMs,
              reason: 'PRODUCT_CHANGE',
              sellingItemIds: [`item-${version}`, 'item-2'],
              explainingItemId: null,
              sourcePartition: 0,
              sourceOffset: version,
              createdMs: startMs,
            },
          });
        else
          records.push({
            topic: 'item-sids',
            key: `${itemId}:1`,
            value: { itemId, sid, validFromMs, reason: 'NEW_ITEM', createdMs: startMs },
          });
      }
    }
    await this.writer.send(records);
  }

  /** Sends events in order of arrival, a chunk at a time, with `between` after each chunk. */
  async sendTraffic(
    arrivals: readonly Arrival[],
    chunk = 400,
    between: (sent: number) => Promise<void> = async () => {},
  ): Promise<void> {
    for (let at = 0; at < arrivals.length; at += chunk) {
      await this.writer.send(
        arrivals
          .slice(at, at + chunk)
          .map(({ topic, value }) => ({ topic, key: value.userId, value }) as AnyOutRecord),
      );
      await between(Math.min(arrivals.length, at + chunk));
    }
  }

  async count(topic: TopicName): Promise<number> {
    return (await this.read(topic)).length;
  }

  /** Everything committed in a topic. */
  async read<T extends TopicName>(topic: T): Promise<TypedRecord<T>[]> {
    const records: TypedRecord<T>[] = [];
    for await (const { typed, error } of readTopic(this.io, topic)) {
      if (error) throw error;
      records.push(typed!);
    }
    return records;
  }

  /** Runs the oracle until it has judged so many exposures, those that came too late among them. */
  async judged(numExposures: number, timeoutMs = 90_000): Promise<Verdict> {
    let verdict: Verdict | undefined;
    await waitFor(
      async () => {
        verdict = await this.verify();
        // On a busy machine the watermark moves by elapsed time between two chunks, and what comes then is late.
        return !verdict.ok || verdict.exposures + (verdict.fates.late ?? 0) >= numExposures;
      },
      { timeoutMs, what: `the oracle to judge ${numExposures} exposures` },
    );
    return verdict!;
  }

  /** Runs the oracle in a process of its own: an embedded database that hangs takes nothing with it. */
  verify(timeoutMs = 240_000): Promise<Verdict> {
    return new Promise((resolve, reject) => {
      const begunMs = performance.now();
      execFile(
        process.execPath,
        [ORACLE],
        {
          env: { ...process.env, ...this.env },
          maxBuffer: 1 << 24,
          timeout: timeoutMs,
          killSignal: 'SIGKILL',
        },
        (error, stdout, stderr) => {
          const line = stdout.trim().split('\n').at(-1) ?? '';
          if (line.startsWith('{')) resolve(JSON.parse(line) as Verdict);
          else {
            const seconds = ((performance.now() - begunMs) / 1000).toFixed(0);
            reject(new Error(`No verdict after ${seconds} s: ${error?.message}\n${stderr}`));
          }
        },
      );
    });
  }

  async close(): Promise<void> {
    for (const instance of this.#instances) await instance.stop();
    await this.writer.close();
    await this.io.close();
    await rm(this.env.ONEMALL_ARTIFACTS_URI!, { recursive: true, force: true });
  }
}
