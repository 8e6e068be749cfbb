/** What operators see of the join, by partition where that tells more. */
import type { Clock, StageMeter } from '@onemall/service-kit';
import type { JoinCounts } from '../stages/join-partition.ts';
import type { JoinOutputs } from '../stages/log-record.ts';

export interface PartitionFacts {
  watermarkMs: number;
  openExposures: number;
  waitingActions: number;
  historyEvents: number;
  /** Records behind the ends of the three logs. */
  lag: number;
}

export class JoinMeter {
  readonly #meter: StageMeter;
  readonly #clock: Clock;
  readonly #partitions = new Map<number, PartitionFacts>();

  constructor(meter: StageMeter, clock: Clock) {
    this.#meter = meter;
    this.#clock = clock;
    for (const name of [
      'late_events',
      'orphan_events',
      'duplicates',
      'samples_without_sid',
      'transactions_aborted',
    ])
      meter.set(name, 0);
  }

  recordIn(count: number): void {
    if (count > 0) this.#meter.recordIn(count);
  }

  observe(partition: number, facts: PartitionFacts): void {
    this.#partitions.set(partition, facts);
  }

  forget(partition: number): void {
    this.#partitions.delete(partition);
  }

  /** Sets the gauges from what was observed last; called now and then, since nobody reads them faster. */
  publish(): void {
    const nowMs = this.#clock.nowMs();
    const all = [...this.#partitions];
    const sum = (of: (facts: PartitionFacts) => number): number =>
      all.reduce((n, [, facts]) => n + of(facts), 0);
    const behind = (facts: PartitionFacts): number => (facts.watermarkMs > 0 ? nowMs - facts.watermarkMs : 0);
    this.#meter.set('partitions_owned', all.length);
    this.#meter.set('watermark_lag_ms', Math.max(0, ...all.map(([, facts]) => behind(facts))));
    this.#meter.set(
      'open_exposures',
      sum((facts) => facts.openExposures),
    );
    this.#meter.set(
      'waiting_events',
      sum((facts) => facts.waitingActions),
    );
    this.#meter.set(
      'history_events',
      sum((facts) => facts.historyEvents),
    );
    this.#meter.setLag(sum((facts) => facts.lag));
    for (const [partition, facts] of all) {
      this.#meter.set(`watermark_lag_ms_p${partition}`, behind(facts));
      this.#meter.set(`open_exposures_p${partition}`, facts.openExposures);
    }
  }

  /** A transaction is durable. */
  committed({ samples, others }: JoinOutputs, counts: JoinCounts, tookMs: number): void {
    const nowMs = this.#clock.nowMs();
    for (const output of others)
      if (output.kind === 'dead') this.#meter.recordDeadLetter(output.record.reason);
    for (const causeMs of samples.causeMs) this.#meter.recordLatency(Math.max(0, nowMs - causeMs));
    if (samples.count > 0) this.#meter.recordOut(samples.count);
    this.#meter.add('late_events', counts.late);
    this.#meter.add('orphan_events', counts.orphans);
    this.#meter.add('duplicates', counts.duplicates);
    this.#meter.add('samples_without_sid', counts.withoutSid);
    this.#meter.set('commit_ms', tookMs);
  }

  aborted(): void {
    this.#meter.add('transactions_aborted');
  }
}
