/**
 * The sample-assembler on preloaded topics, drained by one process on a real broker with transactions every 100 ms and
 * checksums checked: labels only nine times, then with histories of 50; where its time goes; latency at a paced 5,000
 * events/s. The peer is the same join in Kafka Streams, five times as well. ONEMALL_BENCH_EVENTS (1,000,000) makes it smaller.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startTestStack, type TestStack } from '@onemall/testkit';
import { load as machineLoad, versions } from './report/machine.ts';
import type { Benchmark } from './report/result.ts';
import { drain, drainOften, type Logs, openLogs, planOf } from './sample-assembly/drain.ts';
import { measureLatency } from './sample-assembly/latency.ts';
import { runPeer } from './sample-assembly/peer.ts';
import { whereTimeGoes } from './sample-assembly/where-time-goes.ts';

const EVENTS = Number(process.env.ONEMALL_BENCH_EVENTS ?? 1_000_000);
/** Of all events the rest are clicks, buys and copies. */
const EXPOSURES = Math.round(EVENTS / 1.1065);
const FIRST_START_EXPOSURES = 1_000;
const PROFILED = Math.min(EXPOSURES, 300_000);
const benchmark: Benchmark = async (print) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-bench-'));
  const stack = await startTestStack();
  const opened: Logs[] = [];
  const open = async (exposures: number): Promise<Logs> => {
    const logs = await openLogs(stack, planOf(exposures));
    opened.push(logs);
    return logs;
  };
  try {
    // The first start of a version compiles its modules, for which 25 MiB stay with the process; later ones find them in a cache.
    await drain(stack, await open(FIRST_START_EXPOSURES), { historyLength: 0, folder });
    const logs = await open(EXPOSURES);
    const labels = await drainOften(stack, logs, { historyLength: 0, folder });
    print(`labels only: ${JSON.stringify(labels)}`);
    const histories = await drain(stack, logs, { historyLength: 50, folder });
    print(`histories of 50: ${JSON.stringify(histories)}`);
    const small = await open(PROFILED);
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
      ours: { ...labels, histories, whereLabels, whereHistories, latency },
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
    for (const { io } of opened) await io.close();
    await stack.stop();
    rmSync(folder, { recursive: true, force: true });
  }
};

async function profiled(
  stack: TestStack,
  logs: Logs,
  historyLength: number,
  folder: string,
): Promise<Record<string, number>> {
  const profileFolder = mkdtempSync(path.join(folder, 'profile-'));
  await drain(stack, logs, { historyLength, folder, profileFolder });
  return whereTimeGoes(profileFolder);
}

export default benchmark;
