/** What the stages told of themselves during one run: the source of the screen and of the report. Pure. */
import type { StageStatus } from '@onemall/service-kit';

/** A view only looks on: it takes no part in the flow. */
export type StageRole = 'source' | 'service' | 'view';
export interface StageView {
  name: string;
  role: StageRole;
  state: string;
  in: number;
  out: number;
  /** Input records per second over the last moments (output of a source). */
  ratePerS: number;
  p50Ms: number | null;
  p99Ms: number | null;
  lag: number | null;
  deadLetters: number;
  values: Record<string, number>;
  rssBytes: number;
}
export interface LossPoint {
  /** Seconds since the run began. */
  atS: number;
  step: number;
  loss: number;
}

interface StageRecord {
  role: StageRole;
  state: string;
  last: StageStatus | null;
  /** Counts of earlier processes of this stage, which ended. */
  before: { in: number; out: number; deadLetters: number };
  recent: { atMs: number; count: number }[];
}

const RATE_WINDOW_MS = 10_000;
const MAX_LOSS_POINTS = 5_000;

export class RunHistory {
  beganMs = 0;
  readonly losses: LossPoint[] = [];
  readonly peakRssBytes = new Map<string, number>();
  /** When the retrieval model trained on its first sample in this run. */
  firstTrainedMs: number | null = null;
  /** The moment before the source was stopped: rates and lags of the report are those of this moment. */
  end: { atMs: number; views: StageView[] } | null = null;
  #stages = new Map<string, StageRecord>();
  #stepsAtStart: number | null = null;

  /** The moment at which the services were started. */
  begin(atMs: number): this {
    this.beganMs = atMs;
    return this;
  }

  addStage(name: string, role: StageRole): void {
    const before = { in: 0, out: 0, deadLetters: 0 };
    this.#stages.set(name, { role, state: 'waiting', last: null, before, recent: [] });
  }

  setState(name: string, state: string): void {
    this.#stage(name).state = state;
  }

  /** Takes what /status answered. */
  record(atMs: number, name: string, status: StageStatus): void {
    const stage = this.#stage(name);
    if (stage.last && status.upSeconds < stage.last.upSeconds) this.#carryOver(stage);
    stage.last = status;
    stage.state = status.state;
    const count = this.#total(stage, stage.role === 'source' ? 'out' : 'in');
    stage.recent.push({ atMs, count });
    while (stage.recent.length > 2 && atMs - stage.recent[0]!.atMs > RATE_WINDOW_MS) stage.recent.shift();
    if (name === 'trainer-retriever') this.#recordTraining(atMs, status);
  }

  markEnd(atMs: number): void {
    this.end = { atMs, views: this.views() };
  }

  recordRss(name: string, bytes: number): void {
    if (bytes > (this.peakRssBytes.get(name) ?? 0)) this.peakRssBytes.set(name, bytes);
  }

  views(): StageView[] {
    return [...this.#stages].map(([name, stage]) => ({
      name,
      role: stage.role,
      state: stage.state,
      in: this.#total(stage, 'in'),
      out: this.#total(stage, 'out'),
      ratePerS: recentRate(stage.recent),
      p50Ms: stage.last?.p50Ms ?? null,
      p99Ms: stage.last?.p99Ms ?? null,
      lag: stage.last?.lag ?? null,
      deadLetters: this.#total(stage, 'deadLetters'),
      values: stage.last?.values ?? {},
      rssBytes: stage.last?.rssBytes ?? 0,
    }));
  }

  view(name: string): StageView | undefined {
    return this.views().find((v) => v.name === name);
  }

  #recordTraining(atMs: number, { values }: StageStatus): void {
    const step = values.training_steps;
    if (step === undefined) return;
    this.#stepsAtStart ??= step;
    if (step > this.#stepsAtStart) this.firstTrainedMs ??= atMs;
    const loss = values.loss;
    if (loss === undefined || step <= (this.losses.at(-1)?.step ?? this.#stepsAtStart)) return;
    if (this.losses.length < MAX_LOSS_POINTS)
      this.losses.push({ atS: Math.round((atMs - this.beganMs) / 100) / 10, step, loss });
  }

  #carryOver(stage: StageRecord): void {
    stage.before.in += stage.last!.in;
    stage.before.out += stage.last!.out;
    stage.before.deadLetters += stage.last!.deadLetters;
  }

  #total(stage: StageRecord, what: 'in' | 'out' | 'deadLetters'): number {
    return stage.before[what] + (stage.last?.[what] ?? 0);
  }

  #stage(name: string): StageRecord {
    const stage = this.#stages.get(name);
    if (!stage) throw new Error(`No stage ${name} in this run`);
    return stage;
  }
}

function recentRate(recent: readonly { atMs: number; count: number }[]): number {
  const first = recent[0];
  const last = recent.at(-1);
  if (!first || !last || last.atMs <= first.atMs) return 0;
  return ((last.count - first.count) * 1000) / (last.atMs - first.atMs);
}
