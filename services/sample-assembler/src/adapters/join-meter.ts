/** What operators see of the join, by partition where that tells more. */
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
  /** Ours, and nothing is known of them until they are taken over. */
  readonly #takingOver = new Set<number>();
  /** Partitions whose watermark has not begun although they hold records, and since when. */
  readonly #heldSinceMs = new Map<number, number>();
  readonly #counts = new Map<number, PartitionCounts>();

  constructor(meter: StageMeter, clock: Clock) {
    this.#meter = meter;
    this.#clock = clock;
    for (const name of COUNTERS) meter.set(name, 0);
  }

  recordIn(count: number): void {
    if (count > 0) this.#meter.recordIn(count);
  }

  /** Begun, or begun anew after a failed commit: what was observed of the partition is true no longer. */
  takingOver(partition: number): void {
    this.#takingOver.add(partition);
    this.#partitions.delete(partition);
    this.#heldSinceMs.delete(partition);
    this.#countsOf(partition); // go on where there are some: failures that repeat must add up
    this.#meter.unsetPartition(partition);
    this.#meter.setOfPartition(partition, 'taking_over', 1);
  }

  observe(partition: number, facts: PartitionFacts): void {
    this.#partitions.set(partition, facts);
    const holdsRecords = facts.lag > 0 || facts.openExposures > 0 || facts.waitingActions > 0;
    if (facts.watermarkMs > 0 || !holdsRecords) this.#heldSinceMs.delete(partition);
    else if (!this.#heldSinceMs.has(partition)) this.#heldSinceMs.set(partition, this.#clock.nowMs());
  }

  /** The partition is another instance's from now on. */
  forget(partition: number): void {
    this.#takingOver.delete(partition);
    this.#partitions.delete(partition);
    this.#heldSinceMs.delete(partition);
    this.#counts.delete(partition);
    this.#meter.unsetPartition(partition);
  }

  /** Sets the gauges from what was observed last; called now and then, since nobody reads them faster. */
  publish(): void {
    const nowMs = this.#clock.nowMs();
    const all = [...this.#partitions];
    const set = (name: string, value: number): void => this.#meter.set(name, value);
    const sum = (of: (facts: PartitionFacts) => number): number =>
      all.reduce((n, [, facts]) => n + of(facts), 0);
    // A watermark that has not begun is as far behind as its first records have waited, and not behind where there are none.
    const behind = (partition: number, { watermarkMs }: PartitionFacts): number =>
      nowMs - (watermarkMs > 0 ? watermarkMs : (this.#heldSinceMs.get(partition) ?? nowMs));
    set('partitions_owned', all.length);
    set('partitions_taking_over', this.#takingOver.size);
    set(
      'partitions_slowed',
      sum((facts) => Number(facts.isSlowed)),
    );
    set('watermark_lag_ms', Math.max(0, ...all.map(([partition, facts]) => behind(partition, facts))));
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
      const ofPartition = this.#gaugesOf(partition);
      ofPartition('watermark_ms', facts.watermarkMs);
      ofPartition('watermark_lag_ms', behind(partition, facts));
      ofPartition('open_exposures', facts.openExposures);
      ofPartition('waiting_events', facts.waitingActions);
      ofPartition('history_events', facts.historyEvents);
      ofPartition('history_users', facts.users);
      ofPartition('state_bytes', facts.stateBytes);
      ofPartition('history_disk_bytes', facts.historyDiskBytes);
      ofPartition('history_disk_full', Number(facts.areHistoriesStuck));
      ofPartition('slowed', Number(facts.isSlowed));
      ofPartition('lag_records', facts.lag);
      for (const topic of LOG_TOPICS) ofPartition(`waits_for_${topic}`, Number(facts.waitsFor === topic));
    }
    for (const [partition, counts] of this.#counts) {
      const ofPartition = this.#gaugesOf(partition);
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
    this.#takingOver.delete(partition);
    this.#meter.set('take_over_ms', facts.tookMs);
    const ofPartition = this.#gaugesOf(partition);
    ofPartition('taking_over', 0);
    ofPartition('take_over_ms', facts.tookMs);
    ofPartition('replayed_records', facts.replayed);
    ofPartition('restored_from_snapshot', Number(facts.withSnapshot));
  }

  snapshotWritten(partition: number, { sizeBytes, tookMs }: { sizeBytes: number; tookMs: number }): void {
    this.#meter.add('snapshots_written');
    const ofPartition = this.#gaugesOf(partition);
    ofPartition('snapshot_bytes', sizeBytes);
    ofPartition('snapshot_ms', tookMs);
  }
  snapshotFailed(): void {
    this.#meter.add('snapshots_failed');
  }
  snapshotRefused(): void {
    this.#meter.add('snapshots_refused');
  }

  #gaugesOf(partition: number): (name: string, value: number) => void {
    return (name, value) => this.#meter.setOfPartition(partition, name, value);
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
