/** What the trainer tells of itself: gauges for /status and Prometheus, and records on training-metrics. */
import type { RecordWriter } from '@onemall/kafka-io';
import type { Clock, Logger, StageMeter } from '@onemall/service-kit';
import type { Learner, MetricRow, StepOutcome } from '../learner.ts';
import type { Progress } from '../stages/checkpoint-format.ts';
import type { FedSample, SampleFeed } from './sample-feed.ts';

const KEPT_FRESHNESS = 2_000;

export class TrainingReport {
  readonly #samples: SampleFeed;
  readonly #writer: RecordWriter;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #meter: StageMeter;
  readonly #learner: Learner;
  /** Event to gradient, newest last, ms. */
  #freshness: number[] = [];
  #before: { atMs: number; samples: number } | null = null;
  /** What the gate measured last. */
  #judged: readonly MetricRow[] = [];
  /** Of the newest published model; empty before. */
  policyVersion = '';

  constructor(
    samples: SampleFeed,
    writer: RecordWriter,
    clock: Clock,
    log: Logger,
    meter: StageMeter,
    learner: Learner,
  ) {
    this.#samples = samples;
    this.#writer = writer;
    this.#clock = clock;
    this.#log = log;
    this.#meter = meter;
    this.#learner = learner;
  }

  stepDone(progress: Progress, outcome: StepOutcome, samples: readonly FedSample[]): void {
    const nowMs = this.#clock.nowMs();
    const meter = this.#meter;
    meter.recordOut(samples.length);
    for (const { sample, appendedMs } of samples) {
      meter.recordLatency(Math.max(0, nowMs - appendedMs));
      this.#freshness.push(nowMs - causedAtMs(sample));
    }
    if (this.#freshness.length > KEPT_FRESHNESS)
      this.#freshness.splice(0, this.#freshness.length - KEPT_FRESHNESS);
    this.standsAt(progress);
    meter.set('grad_norm', outcome.gradNorm);
    meter.set('step_ms', outcome.stepMs);
  }

  /** Also after a resume, before its first step. */
  standsAt(progress: Progress): void {
    this.#meter.set('training_steps', progress.step);
    this.#meter.set('training_samples', progress.samples);
    if (progress.lossFirst !== null) this.#meter.set('loss_first', progress.lossFirst);
  }

  /** Figures of the gate: gauges at once, training-metrics with the next tick. */
  judged(rows: readonly MetricRow[]): void {
    this.#judged = rows;
    const all = rows.find((row) => row.scenario === '')?.values ?? {};
    for (const [name, value] of Object.entries(all)) this.#meter.set(name, value);
  }

  /** The sliding figures of all scenarios. */
  newest(): Record<string, number> {
    return this.#learner.figures().find((row) => row.scenario === '')?.values ?? {};
  }

  /** Every few seconds. */
  async tick(progress: Progress): Promise<void> {
    const nowMs = this.#clock.nowMs();
    const meter = this.#meter;
    if (this.#before && nowMs > this.#before.atMs)
      meter.set(
        'samples_per_s',
        ((progress.samples - this.#before.samples) * 1000) / (nowMs - this.#before.atMs),
      );
    this.#before = { atMs: nowMs, samples: progress.samples };
    const sorted = Float64Array.from(this.#freshness).sort();
    if (sorted.length > 0) {
      meter.set('freshness_ms', sorted[sorted.length >> 1]!, 'From the event to the gradient, median, ms');
      meter.set('freshness_p99_ms', sorted[Math.floor(sorted.length * 0.99)]!);
    }
    meter.setLag(await this.#samples.lag());
    const rows = this.#learner.figures();
    for (const { scenario, values } of rows)
      if (scenario === '') for (const [name, value] of Object.entries(values)) meter.set(name, value);
    if (rows.length === 0) return;
    const own = meter.status('').values;
    const source = meter.service;
    await this.#writer.send(
      rows.map(({ scenario, values }) => ({
        topic: 'training-metrics' as const,
        key: source,
        value: {
          source,
          scenario,
          version: this.policyVersion,
          step: progress.step,
          values: finite({ ...(scenario === '' && own), ...values, ...this.#judgedIn(scenario) }),
          createdMs: nowMs,
        },
      })),
    );
    const { loss = Number.NaN } = this.newest();
    this.#log.debug({ step: progress.step, samples: progress.samples, loss }, 'training');
  }

  #judgedIn(scenario: string): Record<string, number> {
    return this.#judged.find((row) => row.scenario === scenario)?.values ?? {};
  }
}

/** When the user did what the sample teaches: the first positive, else the exposure. */
function causedAtMs({ exposure, clickDelayMs, buyDelayMs, kind }: FedSample['sample']): number {
  const positiveMs = kind === 'FINAL' ? null : (clickDelayMs ?? buyDelayMs);
  return exposure.eventTimeMs + (positiveMs ?? 0);
}

const finite = (values: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => Number.isFinite(value)));
