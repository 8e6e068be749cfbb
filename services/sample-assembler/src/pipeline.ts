/**
 * consumes      exposures, clicks, buys (partition p of all three by one owner); items, item-sids, live-sids as tables
 * produces      training-samples; late-events; dead-letters
 * waits for     the input furthest behind: an input that has more to come, is not fetched yet, has no leader or an open
 *               transaction holds the watermark; the SID tables, which must have been read to their end since
 *               the watermark passed an exposure; full buffers pause reading
 * unblocked by  records, or fetches that find an input at its end; after maxDelayMs of silence elapsed time
 * commits when  commitIntervalMs passed, half of it where a partition is up to date, or enough has left: samples, late
 *               events, dead letters and the three offsets in one transaction for each partition
 */
import { setImmediate as otherWork } from 'node:timers/promises';
import type { TopicName } from '@onemall/contracts';
import type { FetchedPartition, KafkaIo, LogReader } from '@onemall/kafka-io';
import type { RunningService } from '@onemall/service-kit';
import type { CatalogueTables } from './adapters/catalogue-tables.ts';
import type { JoinMeter } from './adapters/join-meter.ts';
import type { PartitionOwner } from './adapters/partition-owner.ts';
import type { SampleAssemblerConfig } from './config.ts';
import { forgettableBeforeMs } from './stages/catalogue.ts';
import { LOG_TOPICS } from './stages/log-record.ts';

export interface Pipeline {
  io: KafkaIo;
  config: SampleAssemblerConfig;
  groupId: string;
  reader: LogReader;
  tables: CatalogueTables;
  meter: JoinMeter;
  newOwner: (partition: number) => PartitionOwner;
  pause: (ms: number) => Promise<void>;
  monotonicMs: () => number;
  /** Versions of items and SIDs stay this long after no sample needs them. */
  keepVersionsMs: number;
  stopping: AbortSignal;
  fail: (error: unknown) => void;
}

const POLL_MS = 50;
/** Of a partition of one log: more would lie in memory before it is joined, and be no faster. */
const FETCH_BYTES = 256 << 10;
const TABLE_MS = 4;
/** Where all partitions are behind: what leaves fills a transaction anyway. */
const TABLE_BEHIND_MS = 50;
const PUBLISH_MS = 250;
const FORGET_MS = 60_000;

export async function assembleSamples(p: Pipeline): Promise<RunningService> {
  const owners = new Map<number, PartitionOwner>();
  const membership = await p.io.joinGroup({
    groupId: p.groupId,
    topics: LOG_TOPICS as readonly TopicName[],
    sessionTimeoutMs: p.config.sessionTimeoutMs,
    onRebalancing: async () => void (await Promise.all([...owners.values()].map((owner) => owner.flush()))),
    onChange: async ({ assigned, revoked }) => {
      await Promise.all(revoked.map((partition) => owners.get(partition)?.close()));
      for (const partition of revoked) owners.delete(partition);
      for (const partition of assigned) {
        const owner = p.newOwner(partition);
        owners.set(partition, owner);
        void owner.open().catch(p.fail);
      }
    },
    onError: p.fail,
  });
  const loops = [readAndJoin(p, owners), followTables(p, owners)];
  for (const loop of loops) loop.catch(p.fail);
  return {
    stop: async () => {
      await Promise.all(loops.map((loop) => loop.catch(() => {})));
      await Promise.all([...owners.values()].map((owner) => owner.finish()));
      // Others need not wait for snapshots.
      await membership.stop();
      await Promise.all([...owners.values()].map((owner) => owner.close()));
      await Promise.all([p.reader.close(), p.tables.close()]);
      await p.io.close();
    },
  };
}

async function readAndJoin(p: Pipeline, owners: ReadonlyMap<number, PartitionOwner>): Promise<void> {
  let hasMore = false;
  let publishMs = 0;
  while (!p.stopping.aborted) {
    const beganMs = p.monotonicMs();
    const fetched = Map.groupBy<number, FetchedPartition>(
      await p.reader.poll({
        maxWaitMs: hasMore ? 1 : POLL_MS,
        maxBytesPerPartition: FETCH_BYTES,
        signal: p.stopping,
      }),
      (part) => part.partition,
    );
    hasMore = false;
    for (const owner of owners.values()) {
      await owner.take(fetched.get(owner.partition) ?? []);
      if (owner.join(beganMs)) hasMore = true;
      owner.commitWhenDue();
      await otherWork();
    }
    if (beganMs >= publishMs) {
      p.meter.publish();
      publishMs = beganMs + PUBLISH_MS;
    }
    if (owners.size === 0) await p.pause(POLL_MS);
  }
}

/** A record leaves only when the SID tables have answered up to their end since the watermark passed its exposure. */
async function followTables(p: Pipeline, owners: ReadonlyMap<number, PartitionOwner>): Promise<void> {
  let forgotMs = p.monotonicMs();
  while (!p.stopping.aborted) {
    const covers = [...owners.values()].map((owner) => owner.uncovered()).filter((cover) => cover !== null);
    if (covers.length > 0) {
      await p.tables.readToEnd();
      for (const cover of covers) cover();
    }
    for (const owner of owners.values()) owner.commitWhenDue();
    if (p.monotonicMs() - forgotMs >= FORGET_MS) {
      forgotMs = p.monotonicMs();
      const needed = [...owners.values()].map((owner) => owner.neededFromMs);
      const beforeMs = forgettableBeforeMs(needed, p.keepVersionsMs);
      if (beforeMs !== null) p.tables.catalogue.forgetBefore(beforeMs);
    }
    const areBehind = [...owners.values()].every((owner) => owner.isBehind);
    await p.pause(areBehind ? TABLE_BEHIND_MS : TABLE_MS);
  }
}
