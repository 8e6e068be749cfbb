/** What operators see of the join, by partition where that tells more: names of those end in `_p` and the partition's number. */
import type { Clock, StageMeter } from '@onemall/service-kit';
import { LOG_TOPICS, type LogTopic, type OtherOutput } from '../stages/log-record.ts';
import type { JoinCounts } from '../stages/outbox.ts';

/** A partition as it is now. */
export interface PartitionFacts {
  watermarkMs: number;
  openExposures: number;
  waitingActions: number;
  historyEvents: number;
  users: number;
  stateBytes: number;
  historyDiskBytes: number;
  /** Histories stay in memory because the disk takes none. */
  areHistoriesStuck: boolean;
  /** The state is above its limit and reading is slowed. */
  isSlowed: boolean;
  /** The input that the watermark waits for. */
  waitsFor: LogTopic | null;
  /** Records behind the ends of the three logs. */
  lag: number;
}

/** Counted since this instance took the partition over, and of the last commit. */
interface PartitionCounts {
  pinsLeftOut: number;
  lateEvents: number;
  orphanEvents: number;
  commitMs: number;
  transactionsAborted: number;
}

/** What a transaction held. */
export interface Committed {
  numSamples: number;
  /** When the causes of some of the samples came. */
  causesMs: readonly number[];
  others: readonly OtherOutput[];
  counts: JoinCounts;
  tookMs: number;
}

const COUNTERS = [
  'late_events',
  'orphan_events',
  'duplicates',
  'samples_without_sid',
  'transactions_aborted',
  'snapshots_written',
  'snapshots_failed',
  'snapshots_refused',
];

export class JoinMeter {
  readonly #meter: StageMeter;
  readonly #clock: Clock;
  readonly #partitions = new Map<number, PartitionFacts>();
  readonly #counts = new Map<number, PartitionCounts>();

  constructor(meter: StageMeter, clock: Clock) {
    this.#meter = meter;
    this.#clock = clock;
    for (const name of COUNTERS) meter.set(name, 0);
  }

  recordIn(count: number): void {
    if (count > 0) this.#meter.recordIn(count);
  }

  observe(partition: number, facts: PartitionFacts): void {
    this.#partitions.set(partition, facts);
  }

  /** The partition is another instance's from now on. */
  forget(partition: number): void {
    this.#partitions.delete(partition);
    this.#counts.delete(partition);
    this.#meter.unset((name) => name.endsWith(`_p${partition}`));
  }

  /** Sets the gauges from what was observed last; called now and then, since nobody reads them faster. */
  publish(): void {
    const nowMs = this.#clock.nowMs();
    const all = [...this.#partitions];
    const set = (name: string, value: number): void => this.#meter.set(name, value);
    const sum = (of: (facts: PartitionFacts) => number): number =>
      all.reduce((n, [, facts]) => n + of(facts), 0);
    const behind = (facts: PartitionFacts): number => (facts.watermarkMs > 0 ? nowMs - facts.watermarkMs : 0);
    set('partitions_owned', all.length);
    set(
      'partitions_slowed',
      sum((facts) => Number(facts.isSlowed)),
    );
    set('watermark_lag_ms', Math.max(0, ...all.map(([, facts]) => behind(facts))));
    set(
      'open_exposures',
      sum((facts) => facts.openExposures),
    );
    set(
      'waiting_events',
      sum((facts) => facts.waitingActions),
    );
    set(
      'history_events',
      sum((facts) => facts.historyEvents),
    );
    set(
      'history_users',
      sum((facts) => facts.users),
    );
    set(
      'state_bytes',
      sum((facts) => facts.stateBytes),
    );
    set(
      'history_disk_bytes',
      sum((facts) => facts.historyDiskBytes),
    );
    set(
      'partitions_history_disk_full',
      sum((facts) => Number(facts.areHistoriesStuck)),
    );
    this.#meter.setLag(sum((facts) => facts.lag));
    for (const [partition, facts] of all) {
      const ofPartition = (name: string, value: number): void => set(`${name}_p${partition}`, value);
      ofPartition('watermark_ms', facts.watermarkMs);
      ofPartition('watermark_lag_ms', behind(facts));
      ofPartition('open_exposures', facts.openExposures);
      ofPartition('waiting_events', facts.waitingActions);
      ofPartition('history_events', facts.historyEvents);
      ofPartition('history_users', facts.users);
      ofPartition('state_bytes', facts.stateBytes);
      ofPartition('history_disk_bytes', facts.historyDiskBytes);
      ofPartition('history_disk_full', Number(facts.areHistoriesStuck));
      ofPartition('slowed', Number(facts.isSlowed));
      for (const topic of LOG_TOPICS) ofPartition(`waits_for_${topic}`, Number(facts.waitsFor === topic));
      const counts = this.#countsOf(partition);
      ofPartition('late_events', counts.lateEvents);
      ofPartition('orphan_events', counts.orphanEvents);
      ofPartition('commit_ms', counts.commitMs);
      ofPartition('pins_left_out', counts.pinsLeftOut);
      ofPartition('transactions_aborted', counts.transactionsAborted);
    }
  }

  /** A transaction is durable. */
  committed(partition: number, { numSamples, causesMs, others, counts, tookMs }: Committed): void {
    const nowMs = this.#clock.nowMs();
    for (const output of others)
      if (output.kind === 'dead') this.#meter.recordDeadLetter(output.record.reason);
    for (const causeMs of causesMs) this.#meter.recordLatency(Math.max(0, nowMs - causeMs));
    if (numSamples > 0) this.#meter.recordOut(numSamples);
    this.#meter.add('late_events', counts.late);
    this.#meter.add('orphan_events', counts.orphans);
    this.#meter.add('duplicates', counts.duplicates);
    this.#meter.add('samples_without_sid', counts.withoutSid);
    this.#meter.set('commit_ms', tookMs);
    const ofPartition = this.#countsOf(partition);
    ofPartition.lateEvents += counts.late;
    ofPartition.orphanEvents += counts.orphans;
    ofPartition.commitMs = tookMs;
  }

  /** Last-touch decisions that the last commit had no room for. */
  pinsLeftOut(partition: number, count: number): void {
    this.#countsOf(partition).pinsLeftOut = count;
  }

  aborted(partition: number): void {
    this.#meter.add('transactions_aborted');
    this.#countsOf(partition).transactionsAborted++;
  }

  takenOver(partition: number, facts: { replayed: number; tookMs: number; withSnapshot: boolean }): void {
    this.#meter.set('take_over_ms', facts.tookMs);
    this.#meter.set(`take_over_ms_p${partition}`, facts.tookMs);
    this.#meter.set(`replayed_records_p${partition}`, facts.replayed);
    this.#meter.set(`restored_from_snapshot_p${partition}`, Number(facts.withSnapshot));
  }

  snapshotWritten(partition: number, { sizeBytes, tookMs }: { sizeBytes: number; tookMs: number }): void {
    this.#meter.add('snapshots_written');
    this.#meter.set(`snapshot_bytes_p${partition}`, sizeBytes);
    this.#meter.set(`snapshot_ms_p${partition}`, tookMs);
  }
  snapshotFailed(): void {
    this.#meter.add('snapshots_failed');
  }
  snapshotRefused(): void {
    this.#meter.add('snapshots_refused');
  }

  #countsOf(partition: number): PartitionCounts {
    let counts = this.#counts.get(partition);
    if (!counts) {
      counts = { pinsLeftOut: 0, lateEvents: 0, orphanEvents: 0, commitMs: 0, transactionsAborted: 0 };
      this.#counts.set(partition, counts);
    }
    return counts;
  }
}
