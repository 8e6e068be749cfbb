/**
 * The sample-assembler on preloaded topics, drained by one process on a real broker with transactions every 100 ms and
 * checksums checked: labels only, then with histories of 50; where its time goes; latency at a paced 5,000 events/s.
 * The peer is the same join in Kafka Streams. ONEMALL_BENCH_EVENTS (1,000,000) makes it smaller.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connectKafka, type KafkaIo } from '@onemall/kafka-io';
import { spawnService, startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import { load as machineLoad, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';
import { flushEvents, LOGS, type LoadPlan, load, makeEvents } from './sample-assembly/events.ts';
import { measureLatency } from './sample-assembly/latency.ts';
import { runPeer } from './sample-assembly/peer.ts';
import { cpuSecondsOf, machineBusySeconds, peakMiBOf } from './sample-assembly/process-facts.ts';
import { serviceEnv } from './sample-assembly/service-env.ts';
import { whereTimeGoes } from './sample-assembly/where-time-goes.ts';

const EVENTS = Number(process.env.ONEMALL_BENCH_EVENTS ?? 1_000_000);
/** Of all events the rest are clicks, buys and copies. */
const EXPOSURES = Math.round(EVENTS / 1.1065);
const PROFILED = Math.min(EXPOSURES, 300_000);
const PARTITIONS = 4;
const MINUTE_MS = 60_000;
const WINDOWS = { clickWindowMs: 10 * MINUTE_MS, buyWindowMs: 30 * MINUTE_MS };
const GRACE_MS = 2 * MINUTE_MS;
const JITTER_MS = MINUTE_MS;
const TOPICS = [
  ...LOGS,
  'items',
  'item-sids',
  'live-sids',
  'training-samples',
  'late-events',
  'dead-letters',
] as const;
const RETENTION = { largestWindowMs: WINDOWS.buyWindowMs, graceMs: GRACE_MS, longestOutageMs: MINUTE_MS };

const benchmark: Benchmark = async (print) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-'));
  const stack = await startTestStack();
  try {
    const plan: LoadPlan = {
      ...{ seed: 1, exposures: EXPOSURES, users: Math.max(100, Math.round(EXPOSURES / 115)) },
      ...{ startMs: 1_767_225_600_000, spanMs: 120 * MINUTE_MS, jitterMs: JITTER_MS, ...WINDOWS },
    };
    const labels = await drain(stack, plan, 0, folder, null);
    print(`labels only: ${JSON.stringify(labels)}`);
    const histories = await drain(stack, plan, 50, folder, null);
    print(`histories of 50: ${JSON.stringify(histories)}`);
    const small = { ...plan, exposures: PROFILED, users: Math.max(100, Math.round(PROFILED / 115)) };
    const whereLabels = await profiled(stack, small, 0, folder);
    print(`where the time goes, labels only: ${JSON.stringify(whereLabels)}`);
    const whereHistories = await profiled(stack, small, 50, folder);
    print(`where the time goes, histories of 50: ${JSON.stringify(whereHistories)}`);
    const latency = await measureLatency(stack, { historyLength: 0, folder });
    print(`latency at 5,000 events/s: ${JSON.stringify(latency)}`);
    const peer = runPeer(EXPOSURES, print);
    const hasPeer = typeof peer !== 'string';
    const bar = (name: string, value: number, limit: number, ok: boolean) => ({
      name,
      value,
      bar: limit,
      ok,
    });
    return {
      name: 'sample-assembly',
      versions: { ...versions(), events: String(labels.events), load: String(machineLoad()) },
      ours: { ...labels, labels, histories, whereLabels, whereHistories, latency },
      peer: hasPeer ? peer : null,
      ...(!hasPeer && { peerNote: peer }),
      ratios: hasPeer
        ? {
            'CPU per event, peer to ours': peer.cpuUsPerEvent / labels.cpuUsPerEvent,
            'events/s, ours to peer': labels.eventsPerS / peer.eventsPerS,
            'peak memory, peer to ours': peer.peakMiB / labels.peakMiB,
          }
        : {},
      bars: [
        bar('labels only, us CPU per event', labels.cpuUsPerEvent, 4, labels.cpuUsPerEvent <= 4),
        bar('labels only, events/s', labels.eventsPerS, 250_000, labels.eventsPerS >= 250_000),
        bar('labels only, peak MiB', labels.peakMiB, 300, labels.peakMiB <= 300),
        bar('histories of 50, us CPU per event', histories.cpuUsPerEvent, 20, histories.cpuUsPerEvent <= 20),
        bar('p99 ms at 5,000 events/s', latency.p99Ms, 120, latency.p99Ms <= 120),
      ],
    };
  } finally {
    await stack.stop();
    rmSync(folder, { recursive: true, force: true });
  }
};

async function preload(io: KafkaIo, plan: LoadPlan): Promise<{ events: number; exposures: number }> {
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

/** From the start of the process until every sample is durable. */
async function drain(
  stack: TestStack,
  plan: LoadPlan,
  historyLength: number,
  folder: string,
  profileFolder: string | null,
) {
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  try {
    const { events, exposures } = await preload(io, plan);
    const busyBefore = machineBusySeconds();
    const ownBefore = process.cpuUsage();
    const startedMs = performance.now();
    const service = await spawnService('sample-assembler', {
      ...serviceEnv(stack, namespace, folder),
      ONEMALL_SCENARIOS: JSON.stringify({
        product_card: WINDOWS,
        short_video: WINDOWS,
        live_stream: WINDOWS,
      }),
      ONEMALL_GRACE_MS: String(GRACE_MS),
      ONEMALL_OUT_OF_ORDERNESS_MS: String(JITTER_MS),
      ONEMALL_LONGEST_OUTAGE_MS: String(MINUTE_MS),
      ONEMALL_HISTORY_LENGTH: String(historyLength),
      ONEMALL_SNAPSHOT_MS: '0',
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
      events,
      seconds: (endedMs - startedMs) / 1000,
      eventsPerS: Math.round(events / ((endedMs - startedMs) / 1000)),
      secondsToFirstSamples: (firstOutMs - startedMs) / 1000,
      cpuUsPerEvent: (cpuSeconds * 1e6) / events,
      cpuSeconds,
      peakMiB,
      lateEvents: values.late_events,
      brokerAndOthersCpuS: Math.round(othersCpuS * 10) / 10,
    };
  } finally {
    await io.close();
  }
}

async function profiled(
  stack: TestStack,
  plan: LoadPlan,
  historyLength: number,
  folder: string,
): Promise<Record<string, number>> {
  const profileFolder = mkdtempSync(path.join(folder, 'profile-'));
  await drain(stack, plan, historyLength, folder, profileFolder);
  return whereTimeGoes(profileFolder);
}

export default benchmark;
