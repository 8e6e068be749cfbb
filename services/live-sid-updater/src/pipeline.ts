/**
 * consumes        items, item-sids, live-sids, codebooks (to their ends, then followed); live-product-changes
 * produces        item-sids, live-sids, codebooks (the first ones), sid-metrics, dead-letters
 * waits for       a codebook per scenario; trains the first one itself once enough items are there and quiet
 * is unblocked by a new item, a product change, a codebook
 * commits when    live SIDs are written: a transaction of the partition's owner, which once a second and with every
 *                 tombstone moves the offset to the oldest change that no live SID reflects. Changes read again are
 *                 skipped by the rooms' sourceOffset. item-sids need no offset: what the catalogue lacks is computed
 */
import { TOPICS, type TopicName } from '@onemall/contracts';
import {
  type KafkaIo,
  OffsetOutOfRangeError,
  type OutRecord,
  TransactionFailedError,
} from '@onemall/kafka-io';
import { LIVE_STREAM } from '@onemall/quantization';
import type { RunningService, ServiceContext } from '@onemall/service-kit';
import { type ItemEncoder, openItemEncoder } from '@onemall/text-encoder';
import { CodebookBootstrap } from './adapters/bootstrap-codebooks.ts';
import { ChangeLog } from './adapters/change-log.ts';
import { loadCodebook } from './adapters/codebook-store.ts';
import { followTables } from './adapters/follow-tables.ts';
import { SidReporter } from './adapters/report-metrics.ts';
import { takeChanges } from './adapters/take-changes.ts';
import type { UpdaterConfig } from './config.ts';
import { chooseVersions } from './stages/choose-versions.ts';
import { computeItemSids } from './stages/compute-item-sids.ts';
import { computeLiveSids, type LiveSidRecord } from './stages/compute-live-sids.ts';
import type { SettledRoom } from './state/rooms.ts';
import { UpdaterState } from './state/updater-state.ts';

export const INPUTS: readonly TopicName[] = ['items', 'live-product-changes', 'codebooks'];
export const OUTPUTS: readonly TopicName[] = [
  'item-sids',
  'live-sids',
  'codebooks',
  'sid-metrics',
  'dead-letters',
];
const RETRY_MS = 1_000;
/** While rooms wait for their debounce, it is looked at this often. */
const DUE_CHECK_MS = 10;
/**
 * Rooms that are due go together: a run of tower and codebook and the three requests of a transaction cost about the same for
 * one room as for fifty, and on a busy machine it is their number that makes the slow ones wait.
 */
const PUBLISH_EVERY_MS = 25;
/** The process that owns this partition trains the first codebooks. */
const BOOTSTRAP_PARTITION = 0;

export async function startPipeline(
  context: ServiceContext<UpdaterConfig>,
  kafka: KafkaIo,
): Promise<RunningService> {
  const { config, clock, meter, log, artifacts, stopping, fail } = context;
  const state = new UpdaterState({
    ...config,
    scenarios: Object.keys(config.scenarios),
    textEncoder: config.textEncoderFolder || config.picturesFolder ? await openEncoder(context) : null,
    numPartitions: await kafka.numPartitions('live-product-changes'),
  });
  const withRooms = state.scenarios.has(LIVE_STREAM);
  let retakeAtMs = 0;
  let publishAtMs = 0;
  /** Transactions under way by partition. */
  const committing = new Map<number, Promise<void>>();
  /** Those of them that failed. */
  const failed = new Map<number, TransactionFailedError>();
  /** What came before the first codebook waited for it: that is no latency of ours. */
  const servingSinceMs = new Map<string, number>();

  // Restore: codebooks and SIDs first, then the items that they are compared with, then a share of the partitions.
  const tables = await followTables(kafka, state, { clock, meter, onError: fail });
  await adoptCodebooks();
  await tables.openItems();
  const writer = await kafka.openWriter();
  const changes = await ChangeLog.join(kafka, fail);
  const bootstrap = new CodebookBootstrap(context, state);
  const reporter = new SidReporter(context, state, changes);

  async function adoptCodebooks(): Promise<void> {
    for (const scenario of state.scenarios) {
      for (const { codebook, tower } of state.stopRetired(scenario)) {
        await codebook.close();
        await tower?.close();
        log.info({ scenario, codebookVersion: codebook.codebook.version }, 'a codebook is retired');
      }
      const known = (state.codebookRecords.get(scenario) ?? []).filter(
        ({ codebookVersion }) => !state.isRetired(scenario, codebookVersion),
      );
      const served = new Set(state.encoders(scenario).map(({ codebook }) => codebook.version));
      if (known.every((record) => served.has(record.codebookVersion))) continue;
      const published = served.size > 0 ? served : state.publishedVersions(scenario);
      for (const record of chooseVersions(scenario, known, published, config.followNewCodebooks)) {
        if (served.has(record.codebookVersion)) continue;
        const { encoder, tower } = await loadCodebook(artifacts, record);
        state.serve(encoder, tower);
        servingSinceMs.set(scenario, servingSinceMs.get(scenario) ?? clock.nowMs());
        const { codebookVersion, towerVersion } = record;
        log.info({ scenario, codebookVersion, towerVersion }, 'serving a codebook');
      }
    }
  }

  async function takePartition(partition: number): Promise<void> {
    await changes.take(partition);
    await tables.liveSids.readToEnd();
    await tables.itemSids.readToEnd();
    state.own(partition);
    log.info({ partition }, 'owns a partition');
  }

  async function givePartition(partition: number): Promise<void> {
    await committed();
    if (changes.owns(partition)) await publishLiveSids({ all: true, partition });
    await committed();
    if (changes.owns(partition)) await commit(partition, []);
    state.disown(partition);
    await changes.release(partition);
    log.info({ partition }, 'gave a partition back');
  }

  async function readChanges(): Promise<void> {
    if (changes.partitions.length === 0) return clock.sleep(config.debounceMs, stopping).catch(() => {});
    try {
      const fetched = await changes.poll(state.rooms.waiting ? DUE_CHECK_MS : config.debounceMs, stopping);
      if (withRooms) await takeChanges(fetched, { kafka, rooms: state.rooms, writer, meter, clock });
    } catch (error) {
      if (stopping.aborted) return;
      if (!(error instanceof OffsetOutOfRangeError) || !error.at) throw error;
      if (!config.acceptLostChanges)
        throw new Error(
          `${error.message}. Product changes were deleted before they were taken. ONEMALL_ACCEPT_LOST_CHANGES=true goes on at the oldest one; rooms are right again with their next changes.`,
          { cause: error },
        );
      const { partition } = error.at;
      log.error({ err: error, partition }, 'product changes are lost; going on at the oldest one');
      await changes.skipToOldest(partition);
    }
  }

  async function publishItemSids(): Promise<void> {
    const ids = state.dirtyItems.entries().take(config.itemsPerTurn).toArray();
    if (ids.length === 0) return;
    for (const [itemId] of ids) state.dirtyItems.delete(itemId);
    const records = await computeItemSids(
      state,
      ids.map(([itemId]) => itemId),
      clock.nowMs(),
    );
    if (records.length === 0) return;
    await writer.send(records);
    for (const { key, value, timestampMs } of records) state.applyItemSid(key, value, timestampMs);
    meter.recordOut(records.length);
    for (const [, stampMs] of ids) if (stampMs !== null) meter.recordLatency(clock.nowMs() - stampMs);
    if (state.dirtyItems.size === 0) reporter.catalogueChanged();
  }

  /**
   * Each partition has a transaction of its own. It commits beside the next turns, which leave the partition's rooms
   * waiting until it has: changes are read on meanwhile, and what waits goes into the transaction after it.
   */
  async function publishLiveSids(options: { all?: boolean; partition?: number } = {}): Promise<void> {
    if (state.encoders(LIVE_STREAM).length === 0) return;
    const nowMs = clock.nowMs();
    if (!options.all && nowMs < publishAtMs) return;
    const due = state.rooms.settle(nowMs, { ...options, except: committing });
    if (due.length === 0) return;
    publishAtMs = nowMs + PUBLISH_EVERY_MS;
    const result = await computeLiveSids(state, due, clock.nowMs());
    reporter.countComputed(result);
    for (const room of due) state.rooms.stored(room);
    for (const { liveId, causeMs, untilMs } of result.held) state.rooms.hold(liveId, causeMs, untilMs);
    const rooms = Map.groupBy(due, (room) => room.partition);
    for (const [partition, records] of Map.groupBy(result.records, (record) => record.sourcePartition))
      commitBeside(partition, rooms.get(partition)!, records);
  }

  /** A part each turn; their artifacts stay. */
  async function endRetiredSids(): Promise<void> {
    const { items, rooms } = state.retiredSids(config.itemsPerTurn, committing);
    if (items.length === 0 && rooms.length === 0) return;
    const timestampMs = clock.nowMs();
    const ends = items.map((key) => ({ topic: 'item-sids', key, value: null, timestampMs }) as const);
    if (ends.length > 0) await writer.send(ends);
    for (const { key, value } of ends) state.applyItemSid(key, value, timestampMs);
    meter.recordOut(ends.length);
    for (const [partition, mine] of Map.groupBy(rooms, (room) => room.partition))
      commitBeside(
        partition,
        [],
        mine.map(({ key }) => ({
          topic: 'live-sids',
          key,
          value: null,
          timestampMs,
          sourcePartition: partition,
        })),
      );
  }

  function commitBeside(
    partition: number,
    rooms: readonly SettledRoom[],
    records: readonly LiveSidRecord[],
  ): void {
    const done = commitRooms(partition, rooms, records).then(
      (failure) => {
        if (failure) failed.set(partition, failure);
        else committing.delete(partition);
      },
      (error: unknown) => fail(error),
    );
    committing.set(partition, done);
  }

  /** No transaction is under way when it resolves, and what failed is given up. */
  async function committed(): Promise<void> {
    await Promise.all(committing.values());
    await giveUpFailed();
  }
  /** Between two turns: a partition that left amid one would come back with what was being read for it. */
  async function giveUpFailed(): Promise<void> {
    for (const [partition, error] of failed) {
      failed.delete(partition);
      await giveUp(partition, error);
      committing.delete(partition);
    }
  }

  async function commitRooms(
    partition: number,
    rooms: readonly SettledRoom[],
    records: readonly LiveSidRecord[],
  ): Promise<TransactionFailedError | null> {
    try {
      await changes.commit(partition, records, state.rooms.oldestUnstored(partition), clock.nowMs());
    } catch (error) {
      if (!(error instanceof TransactionFailedError)) throw error;
      return error;
    }
    for (const { key, value, timestampMs } of records) state.liveSids.apply(key, value, timestampMs);
    meter.recordOut(records.length);
    for (const { oldestAppendedMs } of rooms)
      if (oldestAppendedMs !== null && oldestAppendedMs >= servingSinceMs.get(LIVE_STREAM)!)
        meter.recordLatency(clock.nowMs() - oldestAppendedMs);
    return null;
  }

  /** After a failed commit the outcome is unknown: a later turn fences, reads back what is there and goes on from that. */
  async function giveUp(partition: number, error: TransactionFailedError): Promise<void> {
    log.warn({ err: error, partition }, 'a commit failed; the partition is read back');
    state.disown(partition);
    await changes.release(partition);
    retakeAtMs = clock.nowMs() + RETRY_MS;
  }

  /** Not while the partition has a transaction under way. */
  async function commit(partition: number, records: readonly OutRecord[]): Promise<boolean> {
    try {
      await changes.commit(partition, records, state.rooms.oldestUnstored(partition), clock.nowMs());
      return true;
    } catch (error) {
      if (!(error instanceof TransactionFailedError)) throw error;
      await giveUp(partition, error);
      return false;
    }
  }

  async function turn(): Promise<void> {
    await giveUpFailed();
    await changes.settleMembership(async ({ assigned, revoked }) => {
      for (const partition of revoked) await givePartition(partition);
      for (const partition of assigned) await takePartition(partition);
    });
    if (clock.nowMs() >= retakeAtMs) for (const partition of changes.untaken) await takePartition(partition);
    await readChanges();
    await adoptCodebooks();
    await publishItemSids();
    await publishLiveSids();
    await endRetiredSids();
    await tables.flushRefused(writer);
    if (changes.owns(BOOTSTRAP_PARTITION)) {
      const record = await bootstrap.step();
      if (record) await committed();
      if (
        record &&
        (await commit(BOOTSTRAP_PARTITION, [{ topic: 'codebooks', key: record.scenario, value: record }]))
      )
        state.takeCodebook(record);
    }
    // What commits anyway brings its offset along.
    if (await reporter.report(writer))
      for (const partition of changes.partitions)
        if (!committing.has(partition)) commitBeside(partition, [], []);
  }

  const loop = (async () => {
    while (!stopping.aborted) await turn();
  })();
  loop.catch(fail);

  return {
    stop: async () => {
      await loop;
      await bootstrap.stopped();
      await committed();
      await publishLiveSids({ all: true });
      await committed();
      for (const partition of changes.partitions) await commit(partition, []);
      await changes.close();
      await tables.close();
      await writer.close();
    },
  };
}

function openEncoder({ config, meter, log }: ServiceContext<UpdaterConfig>): Promise<ItemEncoder> {
  let refused = 0;
  return openItemEncoder(config.textEncoderFolder, {
    picturesFolder: config.picturesFolder,
    onRefused: (itemId, error) => {
      log.warn({ itemId, err: error }, 'a picture cannot be used; its item is embedded without one');
      meter.set('pictures_refused', ++refused, 'Pictures of items that could not be used');
    },
  });
}

export const topicsUsed = (): TopicName[] =>
  TOPICS.map((topic) => topic.name).filter((name) => INPUTS.includes(name) || OUTPUTS.includes(name));
