/** Topics of one namespace on a real broker, filled with the synthetic world, and trainers that read them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { TOPICS, type TrainingSample } from '@onemall/contracts';
import { type AnyOutRecord, connectKafka, type KafkaIo, type TypedRecord } from '@onemall/kafka-io';
import { FolderArtifactStore } from '@onemall/service-kit';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';
import { decodeCheckpoint } from '../src/stages/checkpoint-format.ts';
import { codebook, itemSids, liveSids, SCENARIOS, sample } from './synthetic.ts';

const WINDOWS = { clickWindowMs: 1_000, buyWindowMs: 2_000 };
const RETENTION = { largestWindowMs: 2_000, graceMs: 0, longestOutageMs: 0 };
const PARTITIONS = 3;

export interface World {
  io: KafkaIo;
  env: Record<string, string>;
  /** Appends samples; the first call should come before a trainer starts. */
  addSamples(samples: readonly TrainingSample[]): Promise<void>;
  send(records: readonly AnyOutRecord[]): Promise<void>;
  close(): Promise<void>;
}

/** @param codebooks scenarios that have one; all by default */
export async function openWorld(
  stack: TestStack,
  { codebooks = SCENARIOS }: { codebooks?: readonly string[] } = {},
): Promise<World> {
  const namespace = stack.newNamespace();
  const io = await connectKafka({
    ...{ brokers: stack.brokers, registryUrl: stack.registryUrl, namespace },
    clientId: 'trainer-test',
  });
  const names = TOPICS.map((t) => t.name);
  await io.createTopics(names, { retention: RETENTION, numPartitions: PARTITIONS });
  await io.registerSchemas(names);
  const writer = await io.openWriter();
  await writer.send([
    ...codebooks.map((s) => ({ topic: 'codebooks' as const, key: s, value: codebook(s) })),
    ...itemSids().map((value) => ({ topic: 'item-sids' as const, key: `${value.itemId}:1`, value })),
    ...liveSids().map((value) => ({ topic: 'live-sids' as const, key: `${value.liveId}:1`, value })),
  ]);
  return {
    io,
    env: {
      ONEMALL_KAFKA_BROKERS: stack.brokers,
      ONEMALL_REGISTRY_URL: stack.registryUrl,
      ONEMALL_NAMESPACE: namespace,
      ONEMALL_SCENARIOS: JSON.stringify(Object.fromEntries(SCENARIOS.map((s) => [s, WINDOWS]))),
      ONEMALL_GRACE_MS: '0',
      ONEMALL_LONGEST_OUTAGE_MS: '0',
      ONEMALL_TRAINER_PRESET: 'tiny',
      // the codebooks of this world are records without artifacts
      ONEMALL_CONTENT_START: 'false',
      ONEMALL_RANKER_PRESET: 'tiny',
      ONEMALL_HELD_BACK_FRACTION: '0',
      ONEMALL_MAX_BATCH_WAIT_MS: '300',
      ONEMALL_METRICS_EVERY_MS: '200',
    },
    addSamples: (samples) =>
      writer.send(samples.map((value) => ({ topic: 'training-samples', key: value.exposure.userId, value }))),
    send: (records) => writer.send(records),
    async close() {
      await writer.close();
      await io.close();
    },
  };
}

export const samplesFrom = (first: number, count: number): TrainingSample[] =>
  Array.from({ length: count }, (_, i) => sample(first + i));

/** A trainer with its own folder for state and artifacts, both in `folder`. */
export const startTrainer = (
  world: World,
  folder: string,
  env: Record<string, string> = {},
): Promise<SpawnedService> =>
  spawnService('trainer', {
    ...world.env,
    ONEMALL_DATA_DIR: path.join(folder, 'data'),
    ONEMALL_ARTIFACTS_URI: path.join(folder, 'artifacts'),
    ...env,
  });

export async function newFolder(): Promise<{ path: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'onemall-trainer-'));
  return { path: folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Waits until a gauge of /status reaches a value; names the trainer's last log lines where it does not. */
export async function untilGauge(trainer: SpawnedService, name: string, least: number): Promise<void> {
  // a trainer that is busy or has ended does not answer: the wait goes on, and tells its log at the end
  const value = () =>
    trainer.status().then(
      ({ values }) => values[name] ?? 0,
      () => 0,
    );
  await waitFor(async () => (await value()) >= least, {
    timeoutMs: 90_000,
    what: `${name} of ${least}`,
    intervalMs: 20,
  }).catch((error: Error) => {
    throw new Error(`${error.message}\n${trainer.logTail(40)}`, { cause: error });
  });
}

/** What the newest checkpoint of a model holds. */
export async function newestCheckpoint(folder: string, model: string) {
  const store = new FolderArtifactStore(path.join(folder, 'artifacts'));
  return checkpointAt(store, (await store.list(`checkpoints/${model}`)).at(-1)!);
}

export async function checkpointAt(store: FolderArtifactStore, uri: string) {
  const sha256 = uri.slice(uri.lastIndexOf('-') + 1);
  const files = await store.get({ uri, sha256 });
  return { uri, ...decodeCheckpoint(files), tensorBytes: files.get('tensors.bin')! };
}

/** Every record of a topic that stands there now. */
export async function readAll<T extends Parameters<KafkaIo['decode']>[0]>(
  io: KafkaIo,
  topic: T,
): Promise<TypedRecord<T>[]> {
  const reader = await io.openReader();
  const ends = await io.endOffsets(topic);
  const left = new Map(ends.filter((e) => e.offset > 0).map((e) => [e.partition, e.offset]));
  await reader.assign(ends.map(({ partition }) => ({ topic, partition, offset: -2 })));
  const records: TypedRecord<T>[] = [];
  while (left.size > 0)
    for (const fetched of await reader.poll({ maxWaitMs: 200 })) {
      for (const raw of fetched.records) records.push(await io.decode(topic, raw));
      if (fetched.nextOffset >= (left.get(fetched.partition) ?? 0)) left.delete(fetched.partition);
    }
  await reader.close();
  return records;
}
