/**
 * Latency at a steady rate: from when the event that lets a sample close was handed to the producer until the sample is
 * read with read_committed. The join waits outOfOrdernessMs of event time by design; the closing event lies beyond it.
 */
import { AvroReader, WIRE_HEADER_BYTES } from '@onemall/contracts';
import { connectKafka, type KafkaIo, partitionOf, type RawOutRecord } from '@onemall/kafka-io';
import { spawnService, type TestStack } from '@onemall/testkit';
import { PARTITIONS, TOPICS } from './drain.ts';
import { makeEvents } from './events.ts';
import { cpuSecondsOf, machineBusySeconds } from './process-facts.ts';
import { serviceEnv } from './service-env.ts';

const RATE = 5_000;
const SECONDS = 30;
const WARM_MS = 15_000;
const WINDOWS = { clickWindowMs: 5_000, buyWindowMs: 10_000 };
const GRACE_MS = 2_000;
const JITTER_MS = 500;
/** Ids of exposure, user and item, and the scenario. */
const FIELDS_BEFORE_TIME = 4;

export async function measureLatency(stack: TestStack, options: { historyLength: number; folder: string }) {
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  try {
    const retention = { largestWindowMs: WINDOWS.buyWindowMs, graceMs: GRACE_MS, longestOutageMs: 1_000 };
    await io.createTopics(TOPICS, { retention, numPartitions: PARTITIONS });
    await io.registerSchemas(TOPICS);
    const service = await spawnService('sample-assembler', {
      ...serviceEnv(stack, namespace, options.folder),
      ONEMALL_SCENARIOS: JSON.stringify({
        product_card: WINDOWS,
        short_video: WINDOWS,
        live_stream: WINDOWS,
      }),
      ONEMALL_GRACE_MS: String(GRACE_MS),
      ONEMALL_OUT_OF_ORDERNESS_MS: String(JITTER_MS),
      ONEMALL_LONGEST_OUTAGE_MS: '1000',
      ONEMALL_HISTORY_LENGTH: String(options.historyLength),
    });
    await service.ready();
    const startMs = Date.now() + 2_000;
    const cpuBefore = cpuSecondsOf(service.pid);
    const busyBefore = machineBusySeconds();
    const sent = await sendPaced(io, startMs);
    const latencies = (await sent.read()).sort((a, b) => a - b);
    const cpuSeconds = cpuSecondsOf(service.pid) - cpuBefore;
    const busySeconds = machineBusySeconds() - busyBefore;
    await service.stop();
    const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
    return {
      ...{ p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), maxMs: latencies.at(-1) ?? Number.NaN },
      ...{ measured: latencies.length, greatestSendLagMs: sent.greatestLagMs, cpuSeconds, busySeconds },
    };
  } finally {
    await io.close();
  }
}

/** By partition: newest event time after each event, and when that was sent. */
type Moves = { timeMs: number[]; sentMs: number[] };

async function sendPaced(io: KafkaIo, startMs: number) {
  const headers = {
    exposures: await io.wireHeader('exposures'),
    clicks: await io.wireHeader('clicks'),
    buys: await io.wireHeader('buys'),
  };
  const exposures = Math.round((RATE * SECONDS) / 1.1065);
  const plan = { seed: 7, exposures, users: 50_000, startMs, spanMs: SECONDS * 1_000, jitterMs: JITTER_MS };
  const events = makeEvents({ ...plan, ...WINDOWS }, headers).filter(
    (event) => event.arrivalMs <= startMs + SECONDS * 1_000,
  );
  const moves: Moves[] = Array.from({ length: PARTITIONS }, () => ({ timeMs: [], sentMs: [] }));
  const latencies: number[] = [];
  let isSending = true;
  const reading = readSamples(io, startMs, moves, latencies, () => isSending);
  const writer = await io.openWriter();
  let greatestLagMs = 0;
  for (let at = 0; at < events.length; ) {
    const nowMs = Date.now();
    const records: RawOutRecord[] = [];
    for (; at < events.length && events[at]!.arrivalMs <= nowMs; at++) {
      const { topic, userId, value, timeMs, arrivalMs } = events[at]!;
      records.push({ topic, key: userId, valueBytes: value });
      greatestLagMs = Math.max(greatestLagMs, nowMs - arrivalMs);
      const { timeMs: times, sentMs } = moves[partitionOf(Buffer.from(userId), PARTITIONS)]!;
      if (timeMs <= (times.at(-1) ?? 0)) continue;
      times.push(timeMs);
      sentMs.push(nowMs);
    }
    if (records.length > 0) await writer.send(records);
    else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await writer.close();
  return {
    greatestLagMs,
    read: async () => {
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      isSending = false;
      await reading;
      return latencies;
    },
  };
}

async function readSamples(
  io: KafkaIo,
  startMs: number,
  moves: readonly Moves[],
  latencies: number[],
  goesOn: () => boolean,
): Promise<void> {
  const reader = await io.openReader();
  const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  await reader.assign(partitions.map((partition) => ({ topic: 'training-samples', partition, offset: 0 })));
  while (goesOn())
    for (const part of await reader.poll({ maxWaitMs: 100 })) {
      const nowMs = Date.now();
      for (const { value } of part.records) {
        const closedByMs = eventTimeOf(value!) + WINDOWS.buyWindowMs + GRACE_MS + JITTER_MS;
        const { timeMs, sentMs } = moves[part.partition]!;
        const at = firstAtLeast(timeMs, closedByMs);
        if (closedByMs >= startMs + WARM_MS && at < timeMs.length) latencies.push(nowMs - sentMs[at]!);
      }
    }
  await reader.close();
}

/** Of a sample, which begins with its exposure: decoding all of it would take time from what is measured. */
function eventTimeOf(sample: Buffer): number {
  const reader = new AvroReader().on(sample, WIRE_HEADER_BYTES, sample.length);
  for (let field = 0; field < FIELDS_BEFORE_TIME; field++) reader.string();
  return reader.long();
}

function firstAtLeast(ascending: readonly number[], value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! >= value) high = middle;
    else low = middle + 1;
  }
  return low;
}
