/** Memory of the service itself, on a real broker, with millions of open exposures and histories of many users. */
import { connectKafka, type KafkaIo, type RawOutRecord } from '@onemall/kafka-io';
import { type SpawnedService, spawnService, type TestStack, waitFor } from '@onemall/testkit';
import { PARTITIONS, TOPICS } from './drain.ts';
import {
  ExposureSource,
  GRACE_MS,
  LONGEST_OUTAGE_MS,
  OUT_OF_ORDERNESS_MS,
  openVisits,
  SCENARIO,
  userIdOf,
  type Visit,
  visitsBefore,
  WINDOWS,
} from './exposure-source.ts';
import { cpuSecondsOf, peakMiBOf, residentMiBOf } from './process-facts.ts';
import { untilLive } from './replay.ts';
import { serviceEnv } from './service-env.ts';

const CHUNK = 10_000;
const SNAPSHOT_MS = 60_000;

/** Exposures of days before close on the way; the last hour's stay open, and two rounds of snapshots are written of all that. */
export async function measureLive(
  stack: TestStack,
  { users, eventsPerUser, openExposures }: { users: number; eventsPerUser: number; openExposures: number },
  folder: string,
) {
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  try {
    const retention = {
      largestWindowMs: WINDOWS.buyWindowMs,
      graceMs: GRACE_MS,
      longestOutageMs: LONGEST_OUTAGE_MS,
    };
    await io.createTopics(TOPICS, { retention, numPartitions: PARTITIONS });
    await io.registerSchemas(TOPICS);
    const before = users * eventsPerUser;
    await send(io, visitsBefore(users, before));
    await send(io, openVisits(users, openExposures, before));
    const start = (): Promise<SpawnedService> =>
      spawnService('sample-assembler', {
        ...serviceEnv(stack, namespace, folder),
        ONEMALL_SCENARIOS: JSON.stringify({ [SCENARIO]: WINDOWS }),
        ONEMALL_GRACE_MS: String(GRACE_MS),
        ONEMALL_OUT_OF_ORDERNESS_MS: String(OUT_OF_ORDERNESS_MS),
        ONEMALL_LONGEST_OUTAGE_MS: String(LONGEST_OUTAGE_MS),
        ONEMALL_HISTORY_LENGTH: '50',
        ONEMALL_SNAPSHOT_MS: String(SNAPSHOT_MS),
      });
    const service = await start();
    const wait = (what: string, isThere: (values: Record<string, number>, out: number) => boolean) =>
      waitFor(
        async () => {
          const { values, out } = await service.status();
          return isThere(values, out);
        },
        { what, timeoutMs: 900_000, intervalMs: 500 },
      );
    const startedMs = performance.now();
    await wait('all exposures', (v, out) => out >= before && v.open_exposures === openExposures);
    const drained = {
      seconds: Math.round((performance.now() - startedMs) / 100) / 10,
      cpuSeconds: cpuSecondsOf(service.pid),
    };
    const { snapshots_written: written = 0 } = (await service.status()).values;
    await wait('two rounds of snapshots', (v) => v.snapshots_written! >= written + 2 * PARTITIONS + 1);
    const { values } = await service.status();
    const facts = {
      ...drained,
      openExposures: values.open_exposures,
      historyUsers: values.history_users,
      historyEvents: values.history_events,
      stateMiB: Math.round(values.state_bytes! / (1 << 20)),
      residentMiB: residentMiBOf(service.pid),
      peakMiB: peakMiBOf(service.pid),
    };
    const stopMs = performance.now();
    const exitCode = await service.stop();
    const stopSeconds = Math.round((performance.now() - stopMs) / 100) / 10;
    return { ...facts, exitCode, stopSeconds, again: await untilLive(start) };
  } finally {
    await io.close();
  }
}

async function send(io: KafkaIo, visits: Iterable<Visit>): Promise<void> {
  const header = await io.wireHeader('exposures');
  const source = new ExposureSource();
  const writer = await io.openWriter();
  const chunk: RawOutRecord[] = [];
  for (const visit of visits) {
    const valueBytes = Buffer.concat([header, source.write(visit)]);
    chunk.push({ topic: 'exposures', key: userIdOf(visit.user), valueBytes });
    if (chunk.length < CHUNK) continue;
    await writer.send(chunk.splice(0));
  }
  if (chunk.length > 0) await writer.send(chunk);
  await writer.close();
}
