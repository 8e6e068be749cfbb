/** Predict-then-train figures over the newest steps: each sample is scored by weights that had not seen it yet. */

/** Figures of one scenario in one batch, as the training step gives them. */
export interface ScenarioFigures {
  samples: number;
  /** Samples whose argmax over all codes is the target, by level, given the true codes before it. */
  hits: readonly [number, number, number];
  /** Samples that were scored among the codes of existing SIDs, too; absent in checkpoints from before that was counted. */
  maskedSamples?: number;
  /** Of these, those whose target is best among the codes that go on to an existing SID. */
  maskedHits?: readonly [number, number, number];
  /** Mean cross-entropy by level, nats. */
  ntp: readonly [number, number, number];
}
export type StepFigures = Readonly<Record<string, ScenarioFigures>>;

export interface WindowFigures {
  samples: number;
  /** Sum over the levels of the mean cross-entropy, nats. */
  loss: number;
  /** Mean cross-entropy by level, nats. */
  levelLoss: [number, number, number];
  /** Share of hits by level. */
  accuracy: [number, number, number];
  /** The same among the codes that go on to an existing SID; null where no sample was scored so. */
  maskedAccuracy: [number, number, number] | null;
  maskedSamples: number;
}

/** Figures over the last `windowSteps` steps. */
export class StepWindow {
  readonly #windowSteps: number;
  #steps: StepFigures[] = [];

  constructor(windowSteps: number) {
    this.#windowSteps = windowSteps;
  }
  add(step: StepFigures): void {
    this.#steps.push(step);
    if (this.#steps.length > this.#windowSteps) this.#steps.shift();
  }
  /** The steps in the window, oldest first: a resumed trainer goes on with its figures. */
  saved(): StepFigures[] {
    return [...this.#steps];
  }
  restore(steps: readonly StepFigures[]): void {
    this.#steps = steps.slice(-this.#windowSteps);
  }
  scenarios(): string[] {
    return [...new Set(this.#steps.flatMap((step) => Object.keys(step)))].sort();
  }
  /** Over all scenarios, or one; null where no sample was seen. */
  figures(scenario?: string): WindowFigures | null {
    let samples = 0;
    const levelLoss: [number, number, number] = [0, 0, 0];
    const hits: [number, number, number] = [0, 0, 0];
    let maskedSamples = 0;
    const maskedHits: [number, number, number] = [0, 0, 0];
    for (const step of this.#steps)
      for (const [name, s] of Object.entries(step)) {
        if (scenario !== undefined && name !== scenario) continue;
        samples += s.samples;
        maskedSamples += s.maskedSamples ?? 0;
        for (let level = 0; level < 3; level++) {
          levelLoss[level]! += s.samples * s.ntp[level]!;
          hits[level]! += s.hits[level]!;
          maskedHits[level]! += s.maskedHits?.[level] ?? 0;
        }
      }
    if (samples === 0) return null;
    const per = ([a, b, c]: [number, number, number], count: number): [number, number, number] => [
      a / count,
      b / count,
      c / count,
    ];
    const [first, second, third] = per(levelLoss, samples);
    return {
      samples,
      loss: first + second + third,
      levelLoss: [first, second, third],
      accuracy: per(hits, samples),
      maskedSamples,
      maskedAccuracy: maskedSamples > 0 ? per(maskedHits, maskedSamples) : null,
    };
  }
}
