/** The sample-assembler on topics that are full before it starts. */
import { connectKafka, type KafkaIo } from '@onemall/kafka-io';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';
import { Kafka, logLevel } from 'kafkajs';
import { median } from '../report/result.ts';
import { flushEvents, LOGS, type LoadPlan, load, makeEvents } from './events.ts';
import { cpuSecondsOf, machineBusySeconds, peakMiBOf } from './process-facts.ts';
import { serviceEnv } from './service-env.ts';

export const PARTITIONS = 4;
const MINUTE_MS = 60_000;
const WINDOWS = { clickWindowMs: 10 * MINUTE_MS, buyWindowMs: 30 * MINUTE_MS };
const GRACE_MS = 2 * MINUTE_MS;
const JITTER_MS = MINUTE_MS;
/** What the sample-assembler reads and writes. */
export const TOPICS = [
  ...LOGS,
  'items',
  'item-sids',
  'live-sids',
  'training-samples',
  'late-events',
  'dead-letters',
] as const;
const RETENTION = { largestWindowMs: WINDOWS.buyWindowMs, graceMs: GRACE_MS, longestOutageMs: MINUTE_MS };

export const planOf = (exposures: number): LoadPlan => ({
  ...{ seed: 1, exposures, users: Math.max(100, Math.round(exposures / 115)) },
  ...{ startMs: 1_767_225_600_000, spanMs: 120 * MINUTE_MS, jitterMs: JITTER_MS, ...WINDOWS },
});

export async function preload(io: KafkaIo, plan: LoadPlan): Promise<{ events: number; exposures: number }> {
  await io.createTopics(TOPICS, { retention: RETENTION, numPartitions: PARTITIONS });
  await io.registerSchemas(TOPICS);
  const headers = {
    exposures: await io.wireHeader('exposures'),
    clicks: await io.wireHeader('clicks'),
    buys: await io.wireHeader('buys'),
  };
  const events = makeEvents(plan, headers);
  const endMs = plan.startMs + plan.spanMs + 4 * WINDOWS.buyWindowMs;
  await load(io, events, flushEvents(endMs, headers.exposures, PARTITIONS));
  return { events: events.length, exposures: plan.exposures };
}

export const startAssembler = (
  stack: TestStack,
  namespace: string,
  folder: string,
  more: Record<string, string>,
): Promise<SpawnedService> =>
  spawnService('sample-assembler', {
    ...serviceEnv(stack, namespace, folder),
    ONEMALL_SCENARIOS: JSON.stringify({ product_card: WINDOWS, short_video: WINDOWS, live_stream: WINDOWS }),
    ONEMALL_GRACE_MS: String(GRACE_MS),
    ONEMALL_OUT_OF_ORDERNESS_MS: String(JITTER_MS),
    ONEMALL_LONGEST_OUTAGE_MS: String(MINUTE_MS),
    ...more,
  });

/** Topics that are full before any service starts. */
export interface Logs {
  namespace: string;
  io: KafkaIo;
  events: number;
  exposures: number;
}

export async function openLogs(stack: TestStack, plan: LoadPlan): Promise<Logs> {
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  return { namespace, io, ...(await preload(io, plan)) };
}

/** A broker slows the first three or four down, until Java has compiled it; each takes a sixth of the peer's time. */
const DRAINS = 9;

export interface DrainOptions {
  historyLength: number;
  folder: string;
  profileFolder?: string;
}

/** Medians of several, and the greatest of their peaks. */
export async function drainOften(stack: TestStack, logs: Logs, options: DrainOptions) {
  const runs: Awaited<ReturnType<typeof drain>>[] = [];
  for (let run = 0; run < DRAINS; run++) runs.push(await drain(stack, logs, options));
  const middle = (of: (run: (typeof runs)[0]) => number): number => median(runs.map(of));
  return {
    events: logs.events,
    eventsPerS: middle((r) => r.eventsPerS),
    secondsToFirstSamples: middle((r) => r.secondsToFirstSamples),
    cpuUsPerEvent: middle((r) => r.cpuUsPerEvent),
    peakMiB: Math.max(...runs.map((r) => r.peakMiB)),
    runs,
  };
}

/** The logs from their beginning: from the start of the process until every sample is durable. */
export async function drain(
  stack: TestStack,
  { namespace, events, exposures }: Logs,
  { historyLength, folder, profileFolder }: DrainOptions,
) {
  await forgetOffsets(stack, `${namespace}.sample-assembler`);
  const busyBefore = machineBusySeconds();
  const ownBefore = process.cpuUsage();
  const startedMs = performance.now();
  const service = await startAssembler(stack, namespace, folder, {
    ONEMALL_HISTORY_LENGTH: String(historyLength),
    ONEMALL_SNAPSHOT_MS: '0',
    // Samples of earlier drains stay where they are.
    ONEMALL_ACCEPT_LOSS: 'missing-commits',
    ...(profileFolder && { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profileFolder}` }),
  });
  let firstOutMs = 0;
  await waitFor(
    async () => {
      const { out } = await service.status();
      if (out > 0 && firstOutMs === 0) firstOutMs = performance.now();
      return out >= exposures;
    },
    { what: `${exposures} samples`, timeoutMs: 600_000, intervalMs: 50 },
  );
  const endedMs = performance.now();
  const cpuSeconds = cpuSecondsOf(service.pid);
  const peakMiB = peakMiBOf(service.pid);
  const { user, system } = process.cpuUsage(ownBefore);
  const othersCpuS = machineBusySeconds() - busyBefore - cpuSeconds - (user + system) / 1e6;
  const { values } = await service.status();
  await service.stop();
  return {
    seconds: (endedMs - startedMs) / 1000,
    eventsPerS: Math.round(events / ((endedMs - startedMs) / 1000)),
    secondsToFirstSamples: (firstOutMs - startedMs) / 1000,
    cpuUsPerEvent: (cpuSeconds * 1e6) / events,
    cpuSeconds,
    peakMiB,
    lateEvents: values.late_events,
    brokerAndOthersCpuS: Math.round(othersCpuS * 10) / 10,
  };
}

/** The next member of the group begins at the beginning. */
async function forgetOffsets(stack: TestStack, groupId: string): Promise<void> {
  const admin = new Kafka({ brokers: stack.brokers.split(','), logLevel: logLevel.ERROR }).admin();
  await admin.connect();
  try {
    const { groups } = await admin.listGroups();
    if (groups.some((group) => group.groupId === groupId)) await admin.deleteGroups([groupId]);
  } finally {
    await admin.disconnect();
  }
}
