/**
 * Owns one partition number of the three logs: takes it over (fence, read offsets, replay), joins what was fetched, and
 * commits samples, late events, dead letters and offsets in one transaction. A failed or unknown commit drops the
 * state, and the partition is taken over anew.
 */
import {
  FencedError,
  type FetchedPartition,
  type KafkaIo,
  type LogReader,
  type OutRecord,
  type Position,
  type TransactionalWriter,
} from '@onemall/kafka-io';
import type { Clock, Logger } from '@onemall/service-kit';
import type { SampleAssemblerConfig } from '../config.ts';
import type { CatalogueView } from '../stages/catalogue.ts';
import { formatMetadata, parseMetadata } from '../stages/commit-metadata.ts';
import { type JoinRules, PartitionJoin } from '../stages/join-partition.ts';
import { type JoinOutput, LOG_TOPICS, type LogTopic } from '../stages/log-record.ts';
import { InputMerge } from '../stages/take-in-order.ts';
import { decodeLog } from './decode-log.ts';
import type { JoinMeter } from './join-meter.ts';
import { replayPartition, whyNotRetained } from './replay-partition.ts';
import { refuseMissingCommits, type StartFacts, StartRefusedError } from './start-checks.ts';

const EARLIEST = -2;
const UNKNOWN = -1;
const RECORDS_PER_TURN = 2_000; // before others get their turn
const MAX_PENDING_OUTPUTS = 2_000; // that wait for a transaction; above it joining waits too
const RETRY_MS = 1_000;

/** The part of Kafka that an owner needs. */
export type OwnerIo = Pick<
  KafkaIo,
  'openTransactionalWriter' | 'committed' | 'endOffsets' | 'openReader' | 'decode' | 'deadLetter'
>;

export interface OwnerDeps {
  io: OwnerIo;
  config: SampleAssemblerConfig;
  rules: JoinRules;
  catalogue: CatalogueView;
  reader: LogReader;
  groupId: string;
  facts: StartFacts;
  clock: Clock;
  /** Monotonic milliseconds, the same that `FetchedPartition.sentAtMs` counts in. */
  monotonicMs: () => number;
  meter: JoinMeter;
  log: Logger;
  /** For what no retry can mend. */
  fail: (error: unknown) => void;
}

/** State that a failed commit drops as a whole. */
interface Live {
  writer: TransactionalWriter;
  join: PartitionJoin;
  merge: InputMerge;
  /** Monotonic time before the reader was put at the committed offsets: answers sent earlier began elsewhere. */
  assignedAtMs: number;
  paused: Set<LogTopic>;
  highWatermarks: Record<LogTopic, number>;
  /** What the inputs allow, and when they did; the join follows once the SID tables were read up to then. */
  reached: { watermarkMs: number; atMs: number };
  covered: { watermarkMs: number; atMs: number };
  committedOffsets: string;
  lastCommitMs: number;
  commit: Promise<void> | null;
}

export class PartitionOwner {
  readonly partition: number;
  readonly #deps: OwnerDeps;
  readonly #closing = new AbortController();
  #live: Live | null = null;
  #opening: Promise<void> = Promise.resolve();

  constructor(partition: number, deps: OwnerDeps) {
    this.partition = partition;
    this.#deps = deps;
  }

  get isLive(): boolean {
    return this.#live !== null;
  }

  /** The oldest moment that samples ask the catalogue for; null where that is not known. */
  get neededFromMs(): number | null {
    return this.#live?.join.neededFromMs ?? null;
  }

  /** Takes the partition over, however long brokers are away. @throws StartRefusedError */
  open(): Promise<void> {
    this.#opening = this.#openWithRetry();
    return this.#opening;
  }

  async #openWithRetry(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      try {
        return await this.#takeOver();
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        if (error instanceof StartRefusedError) throw error;
        this.#deps.log.warn(
          { err: error, partition: this.partition },
          'taking the partition over failed; trying again',
        );
        await this.#deps.clock.sleep(RETRY_MS, this.#closing.signal).catch(() => {});
      }
    }
  }

  async #takeOver(): Promise<void> {
    const { io, config, groupId, reader, clock, log, monotonicMs } = this.#deps;
    const { partition } = this;
    const writer = await io.openTransactionalWriter(`${groupId}-${partition}`);
    try {
      await writer.init(); // fences the old owner and settles its transaction: only then are the offsets final
      const committed = await io.committed(
        groupId,
        LOG_TOPICS.map((topic) => ({ topic, partition })),
      );
      const offsets = byTopic((topic) => committed.find((c) => c.topic === topic)?.offset ?? -1);
      const isFirst = LOG_TOPICS.some((topic) => offsets[topic] < 0);
      if (isFirst && !config.acceptLoss.includes('missing-commits'))
        await refuseMissingCommits(io, groupId, partition, this.#deps.facts);
      const meta = isFirst
        ? null
        : byTopic((topic) => parseMetadata(committed.find((c) => c.topic === topic)?.metadata));
      const watermarkMs = meta?.exposures.watermarkMs ?? 0;
      const join = new PartitionJoin(partition, this.#deps.rules, this.#deps.catalogue, {
        watermarkMs,
        ...(meta && { pins: meta.exposures.pins }),
      });
      const merge = new InputMerge(
        {
          outOfOrdernessMs: config.outOfOrdernessMs,
          inputFreshnessMs: config.inputFreshnessMs,
          maxDelayMs: config.maxDelayMs,
          idleTimeoutMs: config.idleTimeoutMs,
          startMs: watermarkMs,
        },
        // Unknown until the first fetch where nothing was committed.
        byTopic((topic) => (isFirst ? UNKNOWN : offsets[topic])),
      );
      const startedMs = monotonicMs();
      const replayed = meta
        ? await replayPartition(
            io,
            { partition, restore: byTopic((topic) => meta[topic].restoreOffset), end: offsets },
            join,
            merge,
            { acceptLoss: config.acceptLoss, nowMs: monotonicMs, stopping: this.#closing.signal },
          )
        : 0;
      join.advance(watermarkMs);
      join.discardReplay();
      const start = await this.#startPositions(isFirst ? null : offsets);
      const assignedAtMs = monotonicMs();
      await reader.assign(start);
      if (this.#closing.signal.aborted) return reader.unassign(start);
      const reached = { watermarkMs, atMs: clock.nowMs() };
      this.#live = {
        writer,
        join,
        merge,
        assignedAtMs,
        paused: new Set(),
        highWatermarks: byTopic(() => 0),
        reached,
        covered: reached,
        committedOffsets: isFirst ? '' : JSON.stringify(offsets),
        lastCommitMs: monotonicMs(),
        commit: null,
      };
      log.info(
        { partition, watermarkMs, offsets, replayed, tookMs: Math.round(monotonicMs() - startedMs) },
        'partition taken over',
      );
    } finally {
      if (this.#live?.writer !== writer) await writer.close().catch(() => {});
    }
  }

  /** Committed offsets, or the beginning; where loss is accepted, at least the earliest retained record. */
  async #startPositions(offsets: Record<LogTopic, number> | null): Promise<Position[]> {
    const { io, config } = this.#deps;
    const { partition } = this;
    const positions = LOG_TOPICS.map((topic) => ({ topic, partition, offset: offsets?.[topic] ?? EARLIEST }));
    if (!offsets || !config.acceptLoss.includes('missing-offsets')) return positions;
    const probe = await io.openReader();
    try {
      for (const position of positions) if (await whyNotRetained(probe, position)) position.offset = EARLIEST;
    } finally {
      await probe.close();
    }
    return positions;
  }

  /** Decodes and buffers this partition's part of a poll; full buffers pause reading. */
  async take(fetched: readonly FetchedPartition[]): Promise<void> {
    const live = this.#live;
    if (!live) return;
    const { io, config, reader } = this.#deps;
    for (const part of fetched) {
      // Polled for the state before this one and waiting since: taking it would skip what lies between.
      if (part.sentAtMs < live.assignedAtMs) continue;
      const topic = part.topic as LogTopic;
      const records = await decodeLog(io, part);
      if (this.#live !== live) return;
      live.merge.fetched({
        topic,
        records,
        nextOffset: part.nextOffset,
        highWatermark: part.highWatermark,
        sentAtMs: part.sentAtMs,
      });
      live.highWatermarks[topic] = part.highWatermark;
      if (live.merge.numBuffered(topic) >= config.maxBufferedRecords && !live.paused.has(topic)) {
        live.paused.add(topic);
        reader.pause([{ topic, partition: this.partition }]);
      }
    }
  }

  /**
   * Feeds the join, always from the input furthest behind, and lets leave what the watermark allows.
   * @param beganMs monotonic time before the poll that brought the records
   * @returns whether there is more to join at once
   */
  join(beganMs: number): boolean {
    const live = this.#live;
    if (!live) return false;
    const { join, merge } = live;
    const { monotonicMs, clock, meter } = this.#deps;
    const nowMs = monotonicMs();
    let taken = 0;
    while (taken < RECORDS_PER_TURN && join.numOutputs < MAX_PENDING_OUTPUTS) {
      const record = merge.take(nowMs);
      if (!record) break;
      const eventTimeMs = join.feed(record);
      if (eventTimeMs !== null) merge.taken(record.topic, eventTimeMs, nowMs);
      taken++;
    }
    meter.recordIn(taken);
    const watermarkMs = merge.watermark.advance(nowMs, beganMs);
    if (watermarkMs > live.reached.watermarkMs) live.reached = { watermarkMs, atMs: clock.nowMs() };
    const isThere = join.advance(live.covered.watermarkMs, live.covered.atMs, MAX_PENDING_OUTPUTS);
    this.#resume(live);
    meter.observe(this.partition, {
      watermarkMs: join.watermarkMs,
      openExposures: join.openExposures,
      waitingActions: join.waitingActions,
      historyEvents: join.histories.numEntries,
      lag: LOG_TOPICS.reduce(
        (sum, topic) => sum + Math.max(0, live.highWatermarks[topic] - Math.max(0, merge.nextOffset(topic))),
        0,
      ),
    });
    return taken >= RECORDS_PER_TURN || !isThere;
  }

  #resume({ paused, merge }: Live): void {
    for (const topic of paused)
      if (merge.numBuffered(topic) < this.#deps.config.maxBufferedRecords / 2) {
        paused.delete(topic);
        this.#deps.reader.resume([{ topic, partition: this.partition }]);
      }
  }

  /**
   * What the inputs have reached and the join has not. Once the SID tables were read to an end that they had after this
   * call, `cover` gives it back and the records up to it may leave.
   */
  uncovered(): (() => void) | null {
    const live = this.#live;
    if (!live || live.reached.watermarkMs <= live.covered.watermarkMs) return null;
    const { reached } = live;
    return () => {
      live.covered = reached;
    };
  }

  /** Starts a transaction when one is due and none is under way. */
  commitWhenDue(): void {
    const live = this.#live;
    if (!live || live.commit) return;
    const dueMs = live.lastCommitMs + this.#deps.config.commitIntervalMs;
    if (this.#deps.monotonicMs() < dueMs && live.join.numOutputs < MAX_PENDING_OUTPUTS) return;
    this.#startCommit(live);
  }

  #startCommit(live: Live): void {
    const { groupId, monotonicMs, facts, meter } = this.#deps;
    const { join, merge, writer } = live;
    // The cut: everything joined so far and the offsets it was joined from, at one moment. The join may go on.
    const offsets = byTopic((topic) => merge.nextOffset(topic));
    const offsetsText = JSON.stringify(offsets);
    join.advance(join.watermarkMs, live.covered.atMs);
    if (LOG_TOPICS.some((topic) => offsets[topic] === UNKNOWN)) return;
    if (join.numOutputs === 0 && offsetsText === live.committedOffsets) return;
    const outputs = join.takeOutputs();
    const counts = join.takeCounts();
    const positions = LOG_TOPICS.map((topic) => ({
      topic,
      partition: this.partition,
      offset: offsets[topic],
      metadata: formatMetadata({
        watermarkMs: join.watermarkMs,
        restoreOffset: join.restoreOffset(topic, offsets[topic]),
        numPartitions: facts.numPartitions,
        pins: topic === 'exposures' ? join.pins() : new Map(),
      }),
    }));
    const startedMs = monotonicMs();
    live.lastCommitMs = startedMs;
    live.committedOffsets = offsetsText;
    live.commit = writer
      .commit({ records: outputs.map((o) => this.#record(o)), offsets: { groupId, positions } })
      .then(
        () => {
          meter.committed(outputs, counts, monotonicMs() - startedMs);
        },
        (error: unknown) => {
          this.#dropState(live, error);
        },
      )
      .finally(() => {
        live.commit = null;
      });
  }

  #record(output: JoinOutput): OutRecord {
    if (output.kind === 'dead') {
      const { record } = output;
      const { topic, partition, offset, appendTimeMs, key, payload, bad } = record;
      return this.#deps.io.deadLetter(
        { topic, partition, offset, timestampMs: appendTimeMs, key, value: payload },
        { reason: bad.reason, message: bad.detail },
      );
    }
    if (output.kind === 'late')
      return { topic: 'late-events', key: output.event.userId, value: output.event };
    return {
      topic: 'training-samples',
      key: output.sample.exposure.userId,
      value: output.sample,
      ...(this.#deps.facts.samplesAlign && { partition: this.partition }),
    };
  }

  /** A commit failed or its outcome is unknown: what it left behind is found out by taking over anew. */
  #dropState(live: Live, error: unknown): void {
    const { log, reader, clock, config, meter, fail } = this.#deps;
    if (this.#live !== live) return;
    this.#live = null;
    meter.aborted();
    reader.unassign(LOG_TOPICS.map((topic) => ({ topic, partition: this.partition })));
    if (this.#closing.signal.aborted) return;
    log.warn({ err: error, partition: this.partition }, 'commit failed: the state is dropped and rebuilt');
    void (async () => {
      await live.writer.close().catch(() => {});
      // A newer owner has the partition: the group will say so soon. Fencing it back at once would only go on and on.
      // Any other failure may repeat: a pause keeps it from becoming a storm of replays.
      const pauseMs = error instanceof FencedError ? config.sessionTimeoutMs : RETRY_MS;
      await clock.sleep(pauseMs, this.#closing.signal).catch(() => {});
      await this.open();
    })().catch(fail);
  }

  /** Commits everything joined so far. */
  async flush(): Promise<void> {
    const live = this.#live;
    if (!live) return;
    await live.commit;
    if (this.#live !== live) return;
    this.#startCommit(live);
    await live.commit;
  }

  /** Commits and lets go. */
  async close(): Promise<void> {
    await this.flush();
    this.#closing.abort(new Error(`partition ${this.partition} is given up`));
    await this.#opening.catch(() => {}); // its caller has the error; here only that it no longer assigns matters
    const live = this.#live;
    this.#live = null;
    this.#deps.reader.unassign(LOG_TOPICS.map((topic) => ({ topic, partition: this.partition })));
    this.#deps.meter.forget(this.partition);
    await live?.writer.close();
  }
}

const byTopic = <V>(of: (topic: LogTopic) => V): Record<LogTopic, V> => ({
  exposures: of('exposures'),
  clicks: of('clicks'),
  buys: of('buys'),
});
