/**
 * What one service tells of itself: records in and out, latency, lag, dead letters and named gauges, as Prometheus
 * metrics and as the JSON of /status that the terminal view, the dashboard and the report read.
 */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface StageStatus {
  service: string;
  state: string;
  in: number;
  out: number;
  /** Milliseconds from the record that caused it to the output, since start. null until there was one. */
  p50Ms: number | null;
  p99Ms: number | null;
  /** Records behind the end of the inputs; null where the service has none. */
  lag: number | null;
  deadLetters: number;
  /** Service-specific gauges by name. */
  values: Record<string, number>;
  rssBytes: number;
  upSeconds: number;
}

export class StageMeter {
  readonly registry = new Registry();
  readonly service: string;
  #in: Counter;
  #out: Counter;
  #dead: Counter<'reason'>;
  #latency: Histogram;
  #lag: Gauge;
  #quantiles: RecordableHistogram = createHistogram();
  #status: Omit<StageStatus, 'p50Ms' | 'p99Ms' | 'rssBytes' | 'upSeconds' | 'state'>;
  #gauges = new Map<string, Gauge>();
  #partitionGauges = new Map<string, Gauge<'partition'>>();

  constructor(service: string) {
    this.service = service;
    const registers = [this.registry];
    this.registry.setDefaultLabels({ service });
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: 50 });
    this.#in = new Counter({ name: 'onemall_records_in_total', help: 'Input records taken', registers });
    this.#out = new Counter({ name: 'onemall_records_out_total', help: 'Output records durable', registers });
    this.#dead = new Counter({
      name: 'onemall_dead_letters_total',
      help: 'Records sent to dead-letters',
      labelNames: ['reason'],
      registers,
    });
    this.#lag = new Gauge({
      name: 'onemall_lag_records',
      help: 'Records behind the end of the inputs',
      registers,
    });
    this.#latency = new Histogram({
      name: 'onemall_latency_ms',
      help: 'From the causing record to the durable output, ms',
      buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000],
      registers,
    });
    this.#status = { service, in: 0, out: 0, lag: null, deadLetters: 0, values: {} };
  }
  recordIn(count = 1): void {
    this.#status.in += count;
    this.#in.inc(count);
  }
  recordOut(count = 1): void {
    this.#status.out += count;
    this.#out.inc(count);
  }
  recordLatency(ms: number): void {
    this.#quantiles.record(Math.max(1, Math.round(ms * 1000)));
    this.#latency.observe(ms);
  }
  recordDeadLetter(reason: string): void {
    this.#status.deadLetters++;
    this.#dead.inc({ reason });
  }
  setLag(records: number): void {
    this.#status.lag = records;
    this.#lag.set(records);
  }
  /** A named gauge: `onemall_<name>` in Prometheus, `values[name]` in /status. Names are snake_case with their unit. */
  set(name: string, value: number, help = name): void {
    let gauge = this.#gauges.get(name);
    if (!gauge) {
      gauge = new Gauge({ name: `onemall_${name}`, help, registers: [this.registry] });
      this.#gauges.set(name, gauge);
    }
    gauge.set(value);
    this.#status.values[name] = value;
  }
  /**
   * A gauge of one partition: `onemall_partition_<name>` with the label `partition` in Prometheus, `values[<name>_p<N>]` in
   * /status. The name differs from that of the whole, so that a sum over all series never counts twice.
   */
  setOfPartition(partition: number, name: string, value: number): void {
    let gauge = this.#partitionGauges.get(name);
    if (!gauge) {
      gauge = new Gauge({
        name: `onemall_partition_${name}`,
        help: name,
        labelNames: ['partition'],
        registers: [this.registry],
      });
      this.#partitionGauges.set(name, gauge);
    }
    gauge.set({ partition }, value);
    this.#status.values[`${name}_p${partition}`] = value;
  }
  /** Takes a partition's gauges back: they tell of nothing any more. */
  unsetPartition(partition: number): void {
    for (const [name, gauge] of this.#partitionGauges) {
      gauge.remove({ partition });
      delete this.#status.values[`${name}_p${partition}`];
    }
  }
  add(name: string, by = 1, help = name): void {
    this.set(name, (this.#status.values[name] ?? 0) + by, help);
  }
  status(state: string): StageStatus {
    const any = this.#quantiles.count > 0;
    return {
      ...this.#status,
      state,
      p50Ms: any ? this.#quantiles.percentile(50) / 1000 : null,
      p99Ms: any ? this.#quantiles.percentile(99) / 1000 : null,
      rssBytes: process.memoryUsage.rss(),
      upSeconds: process.uptime(),
    };
  }
}
