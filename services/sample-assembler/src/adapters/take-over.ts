/** Takes a partition over: fence the old owner, read the committed offsets, rebuild the state, read on from there. */
import type { KafkaIo, Position } from '@onemall/kafka-io';
import type { CatalogueBytes } from '../stages/catalogue.ts';
import { allPins, parseMetadata } from '../stages/commit-metadata.ts';
import { type JoinRules, PartitionJoin } from '../stages/join-partition.ts';
import { byTopic, LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';
import { EventReader } from '../stages/read-event.ts';
import { InputMerge } from '../stages/take-in-order.ts';
import type { HistoryDisk } from './history-disk.ts';
import { type LiveDeps, type TakenOver, UNKNOWN_OFFSET } from './live-partition.ts';
import { EARLIEST, earliestWhereGone, replayPartition, whyNotRetained } from './replay-partition.ts';
import { loadSnapshot } from './snapshots.ts';
import { refuseMissingCommits } from './start-checks.ts';

const MIB = 1 << 20;

export interface TakeOverDeps extends LiveDeps {
  io: Pick<
    KafkaIo,
    | 'openTransactionalWriter'
    | 'committed'
    | 'endOffsets'
    | 'openReader'
    | 'isOwnSchema'
    | 'learnSchema'
    | 'decodeNow'
    | 'deadLetter'
  >;
  rules: JoinRules;
  catalogue: CatalogueBytes;
  openHistories: () => HistoryDisk;
}

/**
 * Waits as long as brokers are away.
 * @param stopping ends it at any moment: whoever gives a partition up waits for it, and others wait for their partitions
 * @throws StartRefusedError, the reason of `stopping`
 */
export async function takeOver(
  partition: number,
  deps: TakeOverDeps,
  stopping: AbortSignal,
): Promise<TakenOver> {
  const { io, config, groupId, reader, log, monotonicMs, rules, snapshots, meter } = deps;
  const writer = await io.openTransactionalWriter(`${groupId}-${partition}`);
  let taken: TakenOver | null = null;
  let histories: HistoryDisk | null = null;
  try {
    // Fences the old owner and settles its transaction: only then are the offsets final.
    await unlessGivenUp(stopping, () => writer.init());
    const committed = await unlessGivenUp(stopping, () =>
      io.committed(
        groupId,
        LOG_TOPICS.map((topic) => ({ topic, partition })),
      ),
    );
    const offsets = byTopic((topic) => committed.find((c) => c.topic === topic)?.offset ?? -1);
    const isFirst = LOG_TOPICS.some((topic) => offsets[topic] < 0);
    if (isFirst && !config.acceptLoss.includes('missing-commits'))
      await unlessGivenUp(stopping, () => refuseMissingCommits(io, groupId, partition, deps.facts, stopping));
    const meta = isFirst
      ? null
      : byTopic((topic) => parseMetadata(committed.find((c) => c.topic === topic)?.metadata));
    const watermarkMs = meta?.exposures.watermarkMs ?? 0;
    if (isFirst) await snapshots.removeAll(partition);
    const snapshot = isFirst
      ? null
      : await snapshots.newest(
          partition,
          { offsets, watermarkMs, mayGoBack: config.acceptLoss.includes('missing-commits') },
          (from) => isRetained(io, partition, from, stopping),
          stopping,
        );
    const events = new EventReader(partition, io, {
      scenarioNames: rules.windows.scenarioNames,
      allowedClockSkewMs: config.allowedClockSkewMs,
    });
    histories = snapshot?.histories ?? deps.openHistories();
    const join = new PartitionJoin(
      partition,
      rules,
      deps.catalogue,
      {
        // With a snapshot it stands where that was taken, until the replay has come to the commit.
        watermarkMs: snapshot?.watermarkMs ?? watermarkMs,
        ...(meta && { pins: allPins(meta) }),
      },
      { cold: histories, maxBytes: config.historyCacheMb * MIB },
    );
    const merge = new InputMerge(
      {
        outOfOrdernessMs: config.outOfOrdernessMs,
        inputFreshnessMs: config.inputFreshnessMs,
        maxDelayMs: config.maxDelayMs,
        idleTimeoutMs: config.idleTimeoutMs,
        startMs: watermarkMs,
      },
      // Unknown until the first fetch where nothing was committed.
      byTopic((topic) => (isFirst ? UNKNOWN_OFFSET : offsets[topic])),
    );
    const startedMs = monotonicMs();
    if (snapshot) loadSnapshot(snapshot, join, merge, monotonicMs());
    const replayed = meta
      ? await unlessGivenUp(stopping, () =>
          replayPartition(
            io,
            {
              partition,
              from:
                snapshot?.offsets ??
                // What lies before the restore offsets only histories need.
                byTopic((topic) => (rules.historyLength > 0 ? EARLIEST : meta[topic].restoreOffset)),
              restore: snapshot?.offsets ?? byTopic((topic) => meta[topic].restoreOffset),
              end: offsets,
            },
            events,
            join,
            merge,
            { acceptLoss: config.acceptLoss, nowMs: monotonicMs, stopping },
          ),
        )
      : 0;
    join.advance(watermarkMs);
    join.discardReplay();
    const start = await startPositions(partition, deps, isFirst ? null : offsets, stopping);
    const assignedAtMs = monotonicMs();
    await unlessGivenUp(stopping, () => reader.assign(start, { signal: stopping }));
    taken = {
      writer,
      events,
      join,
      merge,
      histories,
      assignedAtMs,
      committedOffsets: isFirst ? null : offsets,
    };
    const tookMs = Math.round(monotonicMs() - startedMs);
    const from = snapshot?.uri ?? 'the log alone';
    log.info({ partition, watermarkMs, offsets, from, replayed, tookMs }, 'partition taken over');
    meter.takenOver(partition, { replayed, tookMs, withSnapshot: snapshot !== null });
    return taken;
  } finally {
    if (!taken) {
      histories?.close();
      await writer.close().catch(() => {});
    }
  }
}

/** @throws the signal's reason, at once where the partition is given up: then what is under way leads to nothing */
async function unlessGivenUp<T>(stopping: AbortSignal, begin: () => Promise<T>): Promise<T> {
  stopping.throwIfAborted();
  const givenUp = Promise.withResolvers<never>();
  const giveUp = (): void => givenUp.reject(stopping.reason);
  stopping.addEventListener('abort', giveUp, { once: true });
  try {
    return await Promise.race([begin(), givenUp.promise]);
  } finally {
    stopping.removeEventListener('abort', giveUp);
  }
}

/** Whether the log still holds everything from these offsets on. */
async function isRetained(
  io: Pick<KafkaIo, 'openReader'>,
  partition: number,
  from: Readonly<Record<LogTopic, number>>,
  stopping: AbortSignal,
): Promise<boolean> {
  const probe = await io.openReader();
  try {
    for (const topic of LOG_TOPICS)
      if (await whyNotRetained(probe, { topic, partition, offset: from[topic] }, stopping)) return false;
    return true;
  } finally {
    await probe.close();
  }
}

/** Committed offsets, or the beginning; where loss is accepted, at least the earliest retained record. */
async function startPositions(
  partition: number,
  { io, config }: TakeOverDeps,
  offsets: Record<LogTopic, number> | null,
  stopping: AbortSignal,
): Promise<Position[]> {
  const begin = (from: Readonly<Record<LogTopic, number>>): Position[] =>
    LOG_TOPICS.map((topic) => ({ topic, partition, offset: from[topic] }));
  if (!offsets) return begin(byTopic(() => EARLIEST));
  if (!config.acceptLoss.includes('missing-offsets')) return begin(offsets);
  const probe = await io.openReader();
  try {
    return begin(await earliestWhereGone(probe, partition, offsets, stopping));
  } finally {
    await probe.close();
  }
}
