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

/** Figures of the candidates of reward groups; of one step, or over several. */
export interface GroupFigures {
  candidates: number;
  /** L_RL. */
  loss: number;
  kl: number;
  clipShare: number;
  meanRatio: number;
  maxAbsLogRatio: number;
  advantages: { mean: number; std: number; maxAbs: number };
}

/** Over the last `windowSteps` steps, most of which have no groups; each candidate counts alike. */
export class GroupWindow {
  readonly #windowSteps: number;
  #steps: (GroupFigures | null)[] = [];

  constructor(windowSteps: number) {
    this.#windowSteps = windowSteps;
  }
  /** null: a step without groups. */
  add(step: GroupFigures | null): void {
    this.#steps.push(step);
    if (this.#steps.length > this.#windowSteps) this.#steps.shift();
  }
  /** null where no group was trained. */
  figures(): GroupFigures | null {
    const steps = this.#steps.filter((step) => step !== null);
    if (steps.length === 0) return null;
    const candidates = steps.reduce((sum, step) => sum + step.candidates, 0);
    const mean = (of: (step: GroupFigures) => number): number =>
      steps.reduce((sum, step) => sum + step.candidates * of(step), 0) / candidates;
    const largest = (of: (step: GroupFigures) => number): number => Math.max(...steps.map(of));
    const advantage = mean((step) => step.advantages.mean);
    return {
      candidates,
      loss: mean((step) => step.loss),
      kl: mean((step) => step.kl),
      clipShare: mean((step) => step.clipShare),
      meanRatio: mean((step) => step.meanRatio),
      maxAbsLogRatio: largest((step) => step.maxAbsLogRatio),
      advantages: {
        mean: advantage,
        // within the steps, and between their means
        std: Math.sqrt(mean(({ advantages: a }) => a.std ** 2 + (a.mean - advantage) ** 2)),
        maxAbs: largest((step) => step.advantages.maxAbs),
      },
    };
  }
}
