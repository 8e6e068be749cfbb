/**
 * Product changes of live rooms through a real broker and the live-sid-updater in a process of its own: how many a second
 * it takes from a full log, and how long a change takes until a reader of live-sids has it at 2,000 changes a second. Then
 * beside a retriever in a process of its own: how long until a room that opens is served, and one that ends no longer is.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Item, LiveSid, TopicName } from '@onemall/contracts';
import { connectKafka, type KafkaIo, type OutRecord } from '@onemall/kafka-io';
import { createRetrievalTrainer } from '@onemall/learning';
import { FolderArtifactStore, SeededRandom } from '@onemall/service-kit';
import { type SpawnedService, spawnService, startTestStack, waitFor } from '@onemall/testkit';
import { load, versions } from './report/machine.ts';
import type { Bar, Benchmark } from './report/result.ts';
import { cpuSecondsOf, cpuSecondsOfTree, machineBusySeconds } from './sample-assembly/process-facts.ts';

const ROOMS = 10_000;
const ITEMS = 2_000;
const DIM = 64;
const PARTITIONS = 4;
const BURST = 200_000;
const RATE = 2_000;
const PACED_S = 20;
/** The first seconds warm up. */
const WARM_S = 5;
const TICK_MS = 10;
const MIN_CHANGES_PER_S = 5_000;
const MAX_P99_MS = 250;
const NEW_ITEMS = 200;
const NEW_ITEM_EVERY_MS = 20;
const MAX_NEW_ITEM_MS = 1_000;
/** Rooms that open one after the other, each with a product of its own, and stay so long. */
const SHOWS = 200;
const SHOW_EVERY_MS = 100;
const SHOW_MS = 2_000;
const MAX_SHOW_MS = 1_000;
/** Of their products: what the retriever is asked for. */
const SHOW_CATEGORY = 'show';
const SCENARIOS = ['live_stream', 'product_card'];
const TOPICS: TopicName[] = [
  'items',
  'live-product-changes',
  'item-sids',
  'live-sids',
  'codebooks',
  'sid-metrics',
  'dead-letters',
  'policy-versions',
  'training-samples',
  'rollouts',
  'retrieval-metrics',
];
const RETENTION = { largestWindowMs: 8_000, graceMs: 1_000, longestOutageMs: 86_400_000 };
const DEADLINE_MS = 240_000;

const roomId = (n: number): string => `room-${n}`;
const productId = (n: number): string => `p${n}`;

function catalogue(from = 0, count = ITEMS): Item[] {
  const random = new SeededRandom(1 + from);
  return Array.from({ length: count }, (_, i) => from + i).map((n) => ({
    itemId: productId(n),
    scenario: 'product_card',
    validFromMs: 1_000,
    title: `product ${n}`,
    category: `c${n % 20}`,
    tags: [],
    priceCents: 100,
    sellerId: 's',
    productId: null,
    contentVideo: false,
    embedding: Array.from({ length: DIM }, () => random.normal()),
  }));
}

/** Changes in event time, each room explaining one product after the other. */
class Changes {
  #sent = 0;

  next(nowMs: number, room = this.#sent % ROOMS): OutRecord<'live-product-changes'> & { itemId: string } {
    // Never the product that the room explains already.
    const itemId = productId((room * 7 + Math.floor(this.#sent / ROOMS)) % ITEMS);
    const liveId = roomId(room);
    const value = {
      changeId: `c${this.#sent++}`,
      liveId,
      kind: this.#sent <= ROOMS ? ('ADDED' as const) : ('EXPLAINING' as const),
      itemId,
      eventTimeMs: nowMs,
    };
    return { topic: 'live-product-changes', key: liveId, value, itemId };
  }
}

/** What a reader of live-sids knows. */
class Readable {
  readonly rooms = new Map<string, LiveSid>();
  records = 0;
  /** By room: what its changes explain, and when they were sent. */
  readonly awaited = new Map<string, { itemId: string; sentMs: number }[]>();
  readonly latenciesMs: number[] = [];

  static async follow(kafka: KafkaIo): Promise<Readable> {
    const readable = new Readable();
    await kafka.openTable({
      topic: 'live-sids',
      onRecord: ({ value }) => {
        if (value) readable.take(value);
      },
      onError: (error) => {
        throw error;
      },
    });
    return readable;
  }
  take(value: LiveSid): void {
    this.records++;
    this.rooms.set(value.liveId, value);
    const awaited = this.awaited.get(value.liveId) ?? [];
    const at = awaited.findLastIndex(({ itemId }) => itemId === value.explainingItemId);
    // With a change those before it are readable too.
    for (const { sentMs } of awaited.splice(0, at + 1)) this.latenciesMs.push(performance.now() - sentMs);
    if (awaited.length === 0) this.awaited.delete(value.liveId);
  }
}

interface Spread {
  rooms: number;
  p50Ms: number;
  p99Ms: number;
}
const percentile = (values: readonly number[], p: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * p))] ?? 0;

/** Changes a second from a log that is full when the service starts, until every room's newest one is readable. */
async function burst(
  kafka: KafkaIo,
  readable: Readable,
  changes: Changes,
  start: () => Promise<SpawnedService>,
): Promise<{ changesPerS: number; service: SpawnedService; records: number }> {
  const newest = new Map<string, string>();
  const writer = await kafka.openWriter();
  for (let sent = 0; sent < BURST; ) {
    const batch: OutRecord[] = [];
    for (; batch.length < 2_000 && sent < BURST; sent++) {
      const { itemId, ...record } = changes.next(Date.now());
      newest.set(record.key, itemId);
      batch.push(record);
    }
    await writer.send(batch);
  }
  await writer.close();
  const before = readable.records;
  const service = await start();
  await service.ready(120_000);
  await waitFor(() => readable.records > before, {
    what: 'the first change',
    timeoutMs: DEADLINE_MS,
    intervalMs: 1,
  });
  const begun = performance.now();
  const isThere = ([liveId, itemId]: [string, string]): boolean =>
    readable.rooms.get(liveId)?.explainingItemId === itemId;
  await waitFor(() => [...newest].every(isThere), {
    what: 'all rooms',
    timeoutMs: DEADLINE_MS,
    intervalMs: 5,
  });
  const seconds = (performance.now() - begun) / 1000;
  return { changesPerS: BURST / seconds, service, records: readable.records - before };
}

/** From the moment before a change is sent to the moment at which a reader has the room's record with it. */
async function paced(
  kafka: KafkaIo,
  readable: Readable,
  changes: Changes,
  { pid }: SpawnedService,
): Promise<{
  sent: number;
  latenciesMs: number[];
  updaterCpuMsPerChange: number;
  allCpuMsPerChange: number;
  busyCores: number;
}> {
  const writer = await kafka.openWriter();
  const cpuBefore = {
    updater: cpuSecondsOf(pid),
    all: cpuSecondsOfTree(process.pid),
    machine: machineBusySeconds(),
  };
  const begun = performance.now();
  let sent = 0;
  let warm = 0;
  const sending: Promise<void>[] = [];
  while (performance.now() - begun < PACED_S * 1_000) {
    const due = Math.floor(((performance.now() - begun) / 1000) * RATE);
    const batch: OutRecord[] = [];
    for (; sent < due; sent++) {
      const { itemId, ...record } = changes.next(Date.now());
      const awaited = readable.awaited.get(record.key) ?? [];
      awaited.push({ itemId, sentMs: performance.now() });
      readable.awaited.set(record.key, awaited);
      batch.push(record);
    }
    if (batch.length > 0) sending.push(writer.send(batch));
    if (warm === 0 && performance.now() - begun > WARM_S * 1_000) warm = readable.latenciesMs.length;
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await Promise.all(sending);
  await waitFor(() => readable.awaited.size === 0, {
    what: 'the last changes',
    timeoutMs: DEADLINE_MS,
    intervalMs: 5,
  });
  await writer.close();
  const seconds = (performance.now() - begun) / 1000;
  return {
    sent,
    latenciesMs: readable.latenciesMs.slice(warm),
    updaterCpuMsPerChange: ((cpuSecondsOf(pid) - cpuBefore.updater) * 1000) / sent,
    /** Kafka and the reader and writer of this process with it. */
    allCpuMsPerChange: ((cpuSecondsOfTree(process.pid) - cpuBefore.all) * 1000) / sent,
    /** Of the whole machine, others included. */
    busyCores: (machineBusySeconds() - cpuBefore.machine) / seconds,
  };
}

/** From the moment before a card is sent to items to the moment at which a reader of item-sids has its SID; changes go on beside. */
async function newItems(kafka: KafkaIo, readable: Readable, changes: Changes): Promise<number[]> {
  const awaited = new Map<string, number>();
  const latenciesMs: number[] = [];
  const table = await kafka.openTable({
    topic: 'item-sids',
    onRecord: ({ value }) => {
      const sentMs = value && awaited.get(value.itemId);
      if (!sentMs) return;
      awaited.delete(value.itemId);
      latenciesMs.push(performance.now() - sentMs);
    },
    onError: (error) => {
      throw error;
    },
  });
  await table.readToEnd();
  const writer = await kafka.openWriter();
  for (const value of catalogue(ITEMS, NEW_ITEMS)) {
    awaited.set(value.itemId, performance.now());
    const beside = Array.from({ length: (RATE * NEW_ITEM_EVERY_MS) / 1_000 }, () => {
      const { itemId: _, ...record } = changes.next(Date.now());
      return record;
    });
    void writer.send([{ topic: 'items', key: value.itemId, value }, ...beside]);
    await new Promise((resolve) => setTimeout(resolve, NEW_ITEM_EVERY_MS));
  }
  await waitFor(() => awaited.size === 0, {
    what: 'the last new item',
    timeoutMs: DEADLINE_MS,
    intervalMs: 5,
  });
  await writer.close();
  await table.close();
  readable.awaited.clear();
  return latenciesMs;
}

/** A policy with random weights on the codebooks that the updater has trained. */
async function publishPolicy(kafka: KafkaIo, folder: string): Promise<void> {
  const numCodes: Record<string, [number, number, number]> = {};
  const table = await kafka.openTable({
    topic: 'codebooks',
    onRecord: ({ value }) => {
      if (value) numCodes[value.scenario] = value.numCodes as [number, number, number];
    },
    onError: (error) => {
      throw error;
    },
  });
  await table.readToEnd();
  await table.close();
  const trainer = await createRetrievalTrainer({ preset: 'tiny', scenarios: SCENARIOS, numCodes, seed: 1 });
  const [policyVersion, codebookVersions] = ['1-random', Object.fromEntries(SCENARIOS.map((s) => [s, 1]))];
  const files = await trainer.exportPolicy({ policyVersion, codebookVersions });
  await trainer.close();
  const ref = await new FolderArtifactStore(folder).put('policies/retriever/1', files);
  const writer = await kafka.openWriter();
  const identity = { model: 'RETRIEVER', policyVersion, step: 1, codebookVersions } as const;
  const value = { ...identity, ...ref, metrics: {}, createdMs: Date.now() };
  await writer.send([{ topic: 'policy-versions', key: 'RETRIEVER', value }]);
  await writer.close();
}

/**
 * From the moment before a room's first change is sent to the first answer of /retrieve that has the room, and from before its end
 * is sent to the first that has it no more; changes of the other rooms go on beside.
 */
async function shows(
  kafka: KafkaIo,
  changes: Changes,
  url: string,
): Promise<{ servedMs: number[]; goneMs: number[] }> {
  const writer = await kafka.openWriter();
  const products = catalogue(ITEMS + NEW_ITEMS, SHOWS).map((p) => ({ ...p, category: SHOW_CATEGORY }));
  await writer.send(products.map((value) => ({ topic: 'items', key: value.itemId, value })));
  const ask = async (): Promise<Set<string>> => {
    const response = await fetch(`${url}/retrieve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        ...{ scenario: 'live_stream', history: {}, k: 64, beamWidth: 64 },
        filters: { categories: [SHOW_CATEGORY] },
      }),
    });
    const { items } = (await response.json()) as { items?: { itemId: string }[] };
    if (!items) throw new Error(`/retrieve answered ${response.status}`);
    return new Set(items.map(({ itemId }) => itemId));
  };
  const opening = new Map<string, number>();
  const ending = new Map<string, number>();
  const [servedMs, goneMs] = [[] as number[], [] as number[]];
  let done = false;
  const asking = (async () => {
    while (!done) {
      const asked = { opening: new Map(opening), ending: new Map(ending) };
      const served = await ask();
      const nowMs = performance.now();
      for (const [liveId, sentMs] of asked.opening)
        if (served.has(liveId) && opening.delete(liveId)) servedMs.push(nowMs - sentMs);
      for (const [liveId, sentMs] of asked.ending)
        if (!served.has(liveId) && ending.delete(liveId)) goneMs.push(nowMs - sentMs);
    }
  })();
  const change = (n: number, kind: 'ADDED' | 'ROOM_ENDED'): OutRecord => {
    const liveId = `show-${n}`;
    const itemId = kind === 'ADDED' ? products[n]!.itemId : null;
    const value = { changeId: `${liveId}-${kind}`, liveId, kind, itemId, eventTimeMs: Date.now() };
    return { topic: 'live-product-changes', key: liveId, value };
  };
  const begun = performance.now();
  const isDue = (n: number, afterMs: number): boolean =>
    performance.now() - begun >= n * SHOW_EVERY_MS + afterMs;
  for (let [opened, ended, beside] = [0, 0, 0]; ended < SHOWS; ) {
    const batch: OutRecord[] = [];
    for (; opened < SHOWS && isDue(opened, 0); opened++) {
      opening.set(`show-${opened}`, performance.now());
      batch.push(change(opened, 'ADDED'));
    }
    for (; ended < opened && isDue(ended, SHOW_MS); ended++) {
      if (opening.has(`show-${ended}`)) throw new Error(`show-${ended} was not served within ${SHOW_MS} ms`);
      ending.set(`show-${ended}`, performance.now());
      batch.push(change(ended, 'ROOM_ENDED'));
    }
    for (const due = ((performance.now() - begun) / 1000) * RATE; beside < due; beside++) {
      const { itemId: _, ...record } = changes.next(Date.now());
      batch.push(record);
    }
    if (batch.length > 0) void writer.send(batch);
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await waitFor(() => ending.size === 0, { what: 'the last show', timeoutMs: DEADLINE_MS, intervalMs: 5 });
  done = true;
  await asking;
  await writer.close();
  return { servedMs, goneMs };
}

const most = (name: string, value: number, bar: number): Bar => ({ name, value, bar, ok: value <= bar });

const benchmark: Benchmark = async (print) => {
  const stack = await startTestStack();
  const namespace = stack.newNamespace();
  const kafka = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-'));
  const windows = { clickWindowMs: 4_000, buyWindowMs: RETENTION.largestWindowMs };
  const env = {
    ONEMALL_KAFKA_BROKERS: stack.brokers,
    ONEMALL_REGISTRY_URL: stack.registryUrl,
    ONEMALL_NAMESPACE: namespace,
    ONEMALL_ARTIFACTS_URI: folder,
    ONEMALL_DATA_DIR: folder,
    ONEMALL_GRACE_MS: String(RETENTION.graceMs),
    ONEMALL_SCENARIOS: JSON.stringify({ product_card: windows, live_stream: windows }),
  };
  let service: SpawnedService | undefined;
  let retriever: SpawnedService | undefined;
  try {
    await kafka.createTopics(TOPICS, { retention: RETENTION, numPartitions: PARTITIONS });
    await kafka.registerSchemas(TOPICS);
    const writer = await kafka.openWriter();
    await writer.send(catalogue().map((value) => ({ topic: 'items', key: value.itemId, value })));
    // One change, so that a room is there and the rooms' codebook is trained before anything is measured.
    const changes = new Changes();
    const readable = await Readable.follow(kafka);
    const { itemId: _, ...first } = changes.next(Date.now());
    await writer.send([first]);
    service = await spawnService('live-sid-updater', env);
    await waitFor(() => readable.records > 0, {
      what: 'the first live SID',
      timeoutMs: DEADLINE_MS,
      intervalMs: 50,
    });
    await service.stop();

    const full = await burst(kafka, readable, changes, () => spawnService('live-sid-updater', env));
    service = full.service;
    const { service: __, ...figures } = full;
    print(`burst: ${JSON.stringify(figures)}`);
    const { sent, latenciesMs, ...cpu } = await paced(kafka, readable, changes, service);
    const newItemsMs = await newItems(kafka, readable, changes);
    const items = {
      sent: NEW_ITEMS,
      p50Ms: percentile(newItemsMs, 0.5),
      p99Ms: percentile(newItemsMs, 0.99),
    };
    print(`new items: ${JSON.stringify(items)}`);
    const status = await service.status();
    await publishPolicy(kafka, folder);
    retriever = await spawnService('retriever', {
      ...env,
      ONEMALL_RETRIEVER_PORT: '0',
      ONEMALL_RETRIEVE_CONCURRENCY: '1',
    });
    await retriever.ready(120_000);
    await waitFor(async () => ((await retriever!.status()).values.model_step ?? 0) >= 1, {
      what: 'the policy',
      timeoutMs: DEADLINE_MS,
      intervalMs: 50,
    });
    const port = (await retriever.status()).values.retriever_port;
    const { servedMs, goneMs } = await shows(kafka, changes, `http://127.0.0.1:${port}`);
    const [served, gone] = [servedMs, goneMs].map((values) => ({
      rooms: values.length,
      p50Ms: percentile(values, 0.5),
      p99Ms: percentile(values, 0.99),
    })) as [Spread, Spread];
    print(`rooms served: ${JSON.stringify(served)}, gone: ${JSON.stringify(gone)}`);
    const latency = {
      sent,
      measured: latenciesMs.length,
      p50Ms: percentile(latenciesMs, 0.5),
      p99Ms: percentile(latenciesMs, 0.99),
      maxMs: Math.max(...latenciesMs),
      ...cpu,
    };
    print(`paced: ${JSON.stringify(latency)}`);
    return {
      name: 'live-sids',
      versions: { ...versions(), load: String(load()) },
      ours: { rooms: ROOMS, ...figures, latencyAt2000PerS: latency, newItems: items, served, gone, status },
      peer: null,
      peerNote: 'none; the published figure elsewhere is a period of 30 s',
      ratios: { '30 s to the 99th percentile': 30_000 / latency.p99Ms },
      bars: [
        {
          name: 'product changes per second',
          value: figures.changesPerS,
          bar: MIN_CHANGES_PER_S,
          ok: figures.changesPerS >= MIN_CHANGES_PER_S,
        },
        most('ms from change to readable, 99th percentile', latency.p99Ms, MAX_P99_MS),
        most('ms from a new card to its SID, 99th percentile', items.p99Ms, MAX_NEW_ITEM_MS),
        most("ms from a room's first record to served, 99th percentile", served.p99Ms, MAX_SHOW_MS),
        most("ms from a room's end to gone, 99th percentile", gone.p99Ms, MAX_SHOW_MS),
      ],
    };
  } finally {
    await retriever?.stop();
    await service?.stop();
    await kafka.close();
    await stack.stop();
    rmSync(folder, { recursive: true, force: true });
  }
};
export default benchmark;
