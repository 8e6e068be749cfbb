/** How fast a partition's owner is ready: by the log alone, and with a snapshot. */
import { connectKafka } from '@onemall/kafka-io';
import { type SpawnedService, type TestStack, waitFor } from '@onemall/testkit';
import { PARTITIONS, preload, startAssembler } from './drain.ts';
import type { LoadPlan } from './events.ts';
import { cpuSecondsOf, peakMiBOf } from './process-facts.ts';

/** The log is joined once; then instances start anew, first without snapshots and then with those that one left. */
export async function measureReplay(stack: TestStack, plan: LoadPlan, historyLength: number, folder: string) {
  const namespace = stack.newNamespace();
  const io = await connectKafka({ ...stack, namespace, clientId: 'bench' });
  try {
    const { events, exposures } = await preload(io, plan);
    const start = (snapshotMs: number): Promise<SpawnedService> =>
      startAssembler(stack, namespace, folder, {
        ONEMALL_HISTORY_LENGTH: String(historyLength),
        ONEMALL_SNAPSHOT_MS: String(snapshotMs),
      });
    const first = await start(0);
    await waitFor(async () => (await first.status()).out >= exposures, {
      ...{ what: `${exposures} samples`, timeoutMs: 600_000, intervalMs: 100 },
    });
    await first.stop();
    const byLog = await untilLive(() => start(3_600_000));
    const withSnapshot = await untilLive(() => start(3_600_000));
    return { events, byLog, withSnapshot };
  } finally {
    await io.close();
  }
}

/** From the start of the process until it owns all partitions. */
export async function untilLive(start: () => Promise<SpawnedService>) {
  const startedMs = performance.now();
  const service = await start();
  const of = (values: Record<string, number>, name: string): number[] =>
    Array.from({ length: PARTITIONS }, (_, p) => values[`${name}_p${p}`]).filter((v) => v !== undefined);
  let values: Record<string, number> = {};
  await waitFor(
    async () => {
      ({ values } = await service.status());
      return of(values, 'take_over_ms').length === PARTITIONS;
    },
    { what: 'all partitions', timeoutMs: 300_000, intervalMs: 50 },
  );
  const readyS = (performance.now() - startedMs) / 1000;
  const replayed = of(values, 'replayed_records').reduce((a, b) => a + b, 0);
  const takeOverMs = Math.max(...of(values, 'take_over_ms'));
  const facts = {
    readyS,
    takeOverMs,
    replayed,
    replayedPerS: Math.round(replayed / (takeOverMs / 1000)),
    cpuSeconds: cpuSecondsOf(service.pid),
    peakMiB: peakMiBOf(service.pid),
    fromSnapshots: of(values, 'restored_from_snapshot').reduce((a, b) => a + b, 0),
  };
  await service.stop();
  return facts;
}
