/**
 * A partition that has been taken over: buffers what was fetched, joins it, and commits samples, late events, dead
 * letters and offsets in one transaction. A failed commit ends it; its owner takes the partition over anew.
 */
import type {
  FetchedPartition,
  KafkaIo,
  LogReader,
  OutRecord,
  RecordBlock,
  TransactionalWriter,
} from '@onemall/kafka-io';
import type { Clock, Logger } from '@onemall/service-kit';
import type { SampleAssemblerConfig } from '../config.ts';
import { formatMetadata, packPins } from '../stages/commit-metadata.ts';
import type { PartitionJoin } from '../stages/join-partition.ts';
import { byTopic, LOG_TOPICS, type LogTopic, type OtherOutput } from '../stages/log-record.ts';
import { type EventReader, isBad } from '../stages/read-event.ts';
import type { SampleBlock } from '../stages/sample-block.ts';
import type { InputMerge } from '../stages/take-in-order.ts';
import type { HistoryDisk } from './history-disk.ts';
import type { JoinMeter } from './join-meter.ts';
import { learnSchemas } from './learn-schemas.ts';
import type { Cut, Snapshots } from './snapshots.ts';
import type { StartFacts } from './start-checks.ts';
import type { StateMemory } from './state-memory.ts';

/** Next offset of an input of which nothing was committed and nothing fetched. */
export const UNKNOWN_OFFSET = -1;
const RECORDS_PER_TURN = 4_000; // before others get their turn
/** Of outputs that wait for a transaction; above it joining waits too. With what a record adds to its sample one batch holds them. */
const MAX_PENDING_BYTES = 832 << 10;
/** Not yet joined: more, and the partition counts as behind. */
const BEHIND_RECORDS = 1_000;
/** Of the commit interval, for a partition that is not: its transactions are small, and samples need not wait for more. */
const SHARE_UP_TO_DATE = 0.5;
/** Above the memory limit: about 2,000 records a second. */
const SLOW_RECORDS = 100;
const SLOW_TURN_MS = 50;
/** Of more samples every n-th is measured: most of them left at the same moment anyway. */
const LATENCIES_PER_COMMIT = 50;
const USERS_PER_COMMIT = 2_000; // that are looked at for being forgotten

export interface LiveDeps {
  io: Pick<KafkaIo, 'isOwnSchema' | 'learnSchema' | 'deadLetter'>;
  config: SampleAssemblerConfig;
  reader: LogReader;
  groupId: string;
  facts: StartFacts;
  clock: Clock;
  /** Monotonic milliseconds, the same that `FetchedPartition.sentAtMs` counts in. */
  monotonicMs: () => number;
  meter: JoinMeter;
  /** Users not seen for so long are forgotten: the logs do not hold them any more either. */
  keepUsersMs: number;
  snapshots: Snapshots;
  stateMemory: StateMemory;
  log: Logger;
}

/** What taking over gives. */
export interface TakenOver {
  writer: TransactionalWriter;
  events: EventReader;
  join: PartitionJoin;
  merge: InputMerge;
  histories: HistoryDisk;
  /** Monotonic time before the reader was put at the committed offsets: answers sent earlier began elsewhere. */
  assignedAtMs: number;
  committedOffsets: Record<LogTopic, number> | null;
}

interface Reached {
  watermarkMs: number;
  atMs: number;
}

export class LivePartition {
  readonly partition: number;
  readonly #writer: TransactionalWriter;
  readonly #deps: LiveDeps;
  readonly #state: TakenOver;
  readonly #onFailure: (error: unknown) => void;
  readonly #paused = new Set<LogTopic>();
  readonly #highWatermarks = byTopic(() => 0);
  /** What the inputs allow, and when they did; the join follows once the SID tables were read up to then. */
  #reached: Reached;
  #covered: Reached;
  #committedOffsets: string;
  #lastCommitMs: number;
  #commit: Promise<unknown> | null = null;
  #snapshot: Promise<void> | null = null;
  /** Nothing is joined any more. */
  #isFinishing = false;
  #lastSnapshotMs: number;
  #hasFailed = false;
  #isBehind = false;
  #hasColdError = false;
  /** Monotonic time before which no more is read, since the state is above its limit. */
  #slowUntilMs = 0;

  /** @param onFailure a commit failed or its outcome is unknown */
  constructor(partition: number, state: TakenOver, deps: LiveDeps, onFailure: (error: unknown) => void) {
    this.partition = partition;
    this.#writer = state.writer;
    this.#deps = deps;
    this.#state = state;
    this.#onFailure = onFailure;
    this.#reached = { watermarkMs: state.join.watermarkMs, atMs: deps.clock.nowMs() };
    this.#covered = this.#reached;
    this.#committedOffsets = state.committedOffsets ? JSON.stringify(state.committedOffsets) : '';
    this.#lastCommitMs = deps.monotonicMs();
    // Partitions that were taken over together take turns.
    const { snapshotMs } = deps.config;
    this.#lastSnapshotMs = this.#lastCommitMs - (snapshotMs * (partition % 8)) / 8;
  }

  get isBehind(): boolean {
    return this.#isBehind;
  }
  get neededFromMs(): number {
    return this.#state.join.neededFromMs;
  }

  /** Buffers this partition's part of a poll; full buffers pause reading. */
  async take(fetched: readonly FetchedPartition[]): Promise<void> {
    const { io, config, reader } = this.#deps;
    const { merge, assignedAtMs } = this.#state;
    for (const part of fetched) {
      // Polled for the state before this one and waiting since: taking it would skip what lies between.
      if (part.sentAtMs < assignedAtMs) continue;
      const topic = part.topic as LogTopic;
      await learnSchemas(io, part);
      // Given up meanwhile: the reader no longer has the partition, and the next owner reads this part itself.
      if (this.#hasFailed || this.#isFinishing) return;
      const { nextOffset, highWatermark, sentAtMs } = part;
      const records = part.cursor();
      const release = (): void => part.release();
      merge.fetched({ topic, records, release, nextOffset, highWatermark, sentAtMs });
      this.#highWatermarks[topic] = highWatermark;
      if (merge.numBuffered(topic) >= config.maxBufferedRecords && !this.#paused.has(topic)) {
        this.#paused.add(topic);
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
    if (this.#isFinishing) return false;
    const { join, merge, histories } = this.#state;
    const { monotonicMs, clock, meter } = this.#deps;
    const lag = LOG_TOPICS.reduce(
      (sum, topic) => sum + Math.max(0, this.#highWatermarks[topic] - Math.max(0, merge.nextOffset(topic))),
      0,
    );
    this.#isBehind = lag > BEHIND_RECORDS;
    const nowMs = monotonicMs();
    const isSlowed = this.#isAboveLimit();
    const taken = isSlowed ? this.#feedSlowly(nowMs) : this.#feed(nowMs, RECORDS_PER_TURN);
    meter.recordIn(taken);
    const watermarkMs = merge.watermark.advance(nowMs, beganMs);
    if (watermarkMs > this.#reached.watermarkMs) this.#reached = { watermarkMs, atMs: clock.nowMs() };
    const isThere = this.#leave();
    this.#resume();
    meter.observe(this.partition, {
      watermarkMs: join.watermarkMs,
      openExposures: join.openExposures,
      waitingActions: join.waitingActions,
      historyEvents: join.historyEvents,
      users: join.users,
      stateBytes: join.stateBytes,
      historyDiskBytes: histories.sizeBytes,
      areHistoriesStuck: this.#sayColdError(),
      isSlowed,
      waitsFor: merge.waitsFor(nowMs),
      lag,
    });
    return taken >= RECORDS_PER_TURN || !isThere;
  }

  /** Lets leave what the SID tables were read for. @returns whether all of it has */
  #leave(): boolean {
    return this.#state.join.advance(this.#covered.watermarkMs, this.#covered.atMs, MAX_PENDING_BYTES);
  }

  /** @returns whether histories stay in memory that should be on disk */
  #sayColdError(): boolean {
    const { coldError } = this.#state.join;
    if (coldError && !this.#hasColdError)
      this.#deps.log.error(
        { err: coldError, partition: this.partition },
        'histories stay in memory, for the disk takes none; above the memory limit the partition reads slowly',
      );
    this.#hasColdError = coldError !== null;
    return this.#hasColdError;
  }

  #isAboveLimit(): boolean {
    const { stateMemory } = this.#deps;
    stateMemory.holds(this.partition, this.#state.join.stateBytes);
    return stateMemory.isAboveLimit;
  }

  /** Never to a standstill: only what is read moves the watermark, and that lets state go. */
  #feedSlowly(nowMs: number): number {
    if (nowMs < this.#slowUntilMs) return 0;
    this.#slowUntilMs = nowMs + SLOW_TURN_MS;
    return this.#feed(nowMs, SLOW_RECORDS);
  }

  #feed(nowMs: number, maxRecords: number): number {
    const { join, merge, events } = this.#state;
    let taken = 0;
    while (taken < maxRecords && join.outputBytes < MAX_PENDING_BYTES) {
      const topic = merge.nextTopic(nowMs);
      if (topic === undefined) break;
      const event = events.read(topic, merge.peek(topic));
      if (isBad(event)) join.feedBad(event);
      else merge.taken(topic, join.feed(event), nowMs);
      merge.drop(topic);
      taken++;
    }
    return taken;
  }

  #resume(): void {
    for (const topic of this.#paused)
      if (this.#state.merge.numBuffered(topic) < this.#deps.config.maxBufferedRecords / 2) {
        this.#paused.delete(topic);
        this.#deps.reader.resume([{ topic, partition: this.partition }]);
      }
  }

  /**
   * What the inputs have reached and the join has not. Once the SID tables were read to an end that they had after this
   * call, `cover` gives it back and the records up to it leave.
   */
  uncovered(): (() => void) | null {
    if (this.#reached.watermarkMs <= this.#covered.watermarkMs) return null;
    const reached = this.#reached;
    return () => {
      this.#covered = reached;
      // Histories on disk are gone once a commit has failed, which may have been while the tables were read.
      if (!this.#isFinishing && !this.#hasFailed) this.#leave();
    };
  }

  /** Starts a transaction when one is due and none is under way. */
  commitWhenDue(): void {
    if (this.#commit || this.#isFinishing) return;
    const { snapshotMs } = this.#deps.config;
    if (!this.#snapshot && snapshotMs > 0 && this.#deps.monotonicMs() >= this.#lastSnapshotMs + snapshotMs) {
      this.#startSnapshot();
      return;
    }
    const { commitIntervalMs } = this.#deps.config;
    const dueMs = this.#lastCommitMs + commitIntervalMs * (this.#isBehind ? 1 : SHARE_UP_TO_DATE);
    if (this.#deps.monotonicMs() < dueMs && this.#state.join.outputBytes < MAX_PENDING_BYTES) return;
    this.#startCommit(false);
  }

  /** Commits everything joined so far. */
  async flush(): Promise<void> {
    await this.#commit;
    if (this.#hasFailed || this.#isFinishing) return;
    this.#startCommit(false);
    await this.#commit;
  }

  /** Commits everything joined so far, the last that this owner does, and begins a snapshot of it for the next one. */
  async finish(): Promise<void> {
    await this.#commit;
    if (this.#hasFailed || this.#isFinishing) return;
    this.#isFinishing = true;
    // One that is being written now is hardly older.
    if (this.#deps.config.snapshotMs > 0 && !this.#snapshot) this.#startSnapshot();
    else this.#startCommit(false);
    await this.#commit;
  }

  /** Lets go of what lies outside memory, once the snapshot that `finish` has begun is written. */
  async close(): Promise<void> {
    if (this.#isFinishing) await this.#snapshot;
    this.#state.histories.close();
    this.#deps.stateMemory.letsGo(this.partition);
    await this.#writer.close();
  }

  /** A snapshot of a cut, written beside the transaction of that cut and there to be found only once that is durable. */
  #startSnapshot(): void {
    this.#lastSnapshotMs = this.#deps.monotonicMs();
    const cut = this.#startCommit(true);
    if (!cut) return;
    this.#snapshot = this.#deps.snapshots
      .write(this.partition, cut, this.#state, !this.#isFinishing)
      .finally(() => {
        this.#snapshot = null;
      });
  }

  /**
   * @param isForced commits the watermark although nothing has left
   * @returns the cut; null where nothing was to commit
   */
  #startCommit(isForced: boolean): Cut | null {
    const { groupId, monotonicMs, facts, meter, keepUsersMs } = this.#deps;
    const { join, merge, writer } = this.#state;
    // The cut: everything joined so far and the offsets it was joined from, at one moment. The join may go on.
    const offsets = byTopic((topic) => merge.nextOffset(topic));
    const offsetsText = JSON.stringify(offsets);
    join.advance(join.watermarkMs, this.#covered.atMs);
    if (LOG_TOPICS.some((topic) => offsets[topic] === UNKNOWN_OFFSET)) return null;
    if (!isForced && join.numOutputs === 0 && offsetsText === this.#committedOffsets) return null;
    const { samples, others } = join.takeOutputs();
    const counts = join.takeCounts();
    const numSamples = samples.count;
    const causesMs = samples.someCauses(LATENCIES_PER_COMMIT);
    if (numSamples === 0) join.giveBack(samples);
    join.forgetUsersBefore(join.watermarkMs - keepUsersMs, USERS_PER_COMMIT);
    const pins = packPins(join.pins());
    meter.pinsLeftOut(this.partition, pins.numLeftOut);
    const positions = LOG_TOPICS.map((topic) => ({
      topic,
      partition: this.partition,
      offset: offsets[topic],
      metadata: formatMetadata(
        {
          watermarkMs: join.watermarkMs,
          restoreOffset: join.restoreOffset(topic, offsets[topic]),
          numPartitions: facts.numPartitions,
        },
        pins.texts[topic],
      ),
    }));
    const startedMs = monotonicMs();
    this.#lastCommitMs = startedMs;
    this.#committedOffsets = offsetsText;
    const isDurable = writer
      .commit({
        records: others.map((output) => this.#record(output)),
        blocks: numSamples > 0 ? [this.#block(samples)] : [],
        offsets: { groupId, positions },
      })
      .then(
        () => {
          const tookMs = monotonicMs() - startedMs;
          meter.committed(this.partition, { numSamples, causesMs, others, counts, tookMs });
          return true;
        },
        (error: unknown) => {
          this.#hasFailed = true;
          this.#onFailure(error);
          return false;
        },
      );
    this.#commit = isDurable.finally(() => {
      this.#commit = null;
    });
    return { offsets, isDurable };
  }

  #block(samples: SampleBlock): RecordBlock {
    const { bytes, count, keyStart, keyLength, valueStart, valueEnd } = samples;
    return {
      topic: 'training-samples',
      ...(this.#deps.facts.samplesAlign && { partition: this.partition }),
      ...{ bytes, count, keyStart, keyLength, valueStart, valueEnd },
      copied: () => this.#state.join.giveBack(samples),
    };
  }

  #record(output: OtherOutput): OutRecord {
    if (output.kind === 'late')
      return { topic: 'late-events', key: output.event.userId, value: output.event };
    const { topic, partition, offset, appendTimeMs, key, payload, reason, detail } = output.record;
    return this.#deps.io.deadLetter(
      { topic, partition, offset, timestampMs: appendTimeMs, key, value: payload },
      { reason, message: detail },
    );
  }
}
