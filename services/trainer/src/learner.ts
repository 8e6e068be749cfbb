/**
 * What the training loop needs of a model. `retriever-learner.ts` and `ranker-learner.ts` fill it; the loop, the batches,
 * the manifests and the checkpoints are the same for both.
 */
import type { Codebook, ModelKind, RewardBatch, StreamedSample } from '@onemall/contracts';
import type { TrainerState } from '@onemall/learning';
import type { LeftOut } from './stages/select-sample.ts';

export interface StepOutcome {
  /** What is reported as the loss: next-token loss, or the ranker's total. The loss guard watches it and the two below. */
  loss: number;
  /** In-batch contrast, nats; the ranker has none. */
  contrastive?: number;
  /** Mean over the reward groups of their loss; absent in a step without any. */
  rl?: number;
  gradNorm: number;
  stepMs: number;
}

/** Figures of one scenario, or of all where scenario is empty. */
export interface MetricRow {
  scenario: string;
  values: Record<string, number>;
}

export interface LearnerState {
  trainer: TrainerState;
  /** JSON of what the model keeps beside its weights. */
  extra: unknown;
}

/** Files of a published model by name. */
export type Files = ReadonlyMap<string, Uint8Array>;

export interface GateVerdict {
  /** wait: there is too little to judge by, and a published model that goes on meanwhile. */
  outcome: 'publish' | 'wait' | 'refuse';
  /** Why it was refused or has to wait, or is published unmeasured. */
  reasons: string[];
  /** What was measured on held-back requests, of the candidate and of the published model. */
  figures: MetricRow[];
}

/** Judges the files of a model before they are published. */
export interface ModelGate {
  /** A sample that only its being held back keeps out of training. */
  see(sample: StreamedSample): void;
  /** Called with each batch, while the SID tables hold the versions of the newest requests. */
  encodeWaiting(): void;
  /** Codebook versions of the models that `compareWith` takes. */
  readonly comparesWith: Readonly<Record<string, number>>;
  /** The model that is in use when the trainer starts. @throws PublishedModelError */
  compareWith(files: Files): Promise<void>;
  /** @throws the reason of `stopping` when the service stops meanwhile */
  judge(files: Files, stopping: AbortSignal): Promise<GateVerdict>;
  /** The model judged last was published: the next ones are held to it. */
  accepted(): Promise<void>;
  close(): Promise<void>;
}

/** The codebooks that a model's weights belong to, by scenario. */
export interface Codebooks {
  codebookVersions: Readonly<Record<string, number>>;
  numCodes: Readonly<Record<string, readonly [number, number, number]>>;
}

export const codebooksOf = (records: readonly Codebook[]): Codebooks => ({
  codebookVersions: Object.fromEntries(records.map((c) => [c.scenario, c.codebookVersion])),
  numCodes: Object.fromEntries(records.map((c) => [c.scenario, c.numCodes as [number, number, number]])),
});

/** @typeParam B samples as the model's tensors */
export interface Learner<B = unknown> {
  readonly kind: ModelKind;
  /** retriever or ranker: the folder of its artifacts and the end of its transactional id. */
  readonly model: 'retriever' | 'ranker';
  readonly batchSize: number;
  /** By scenario; empty for the ranker. */
  readonly codebookVersions: Readonly<Record<string, number>>;
  leavesOut(sample: StreamedSample): LeftOut | null;
  /** null where no sample of them has what the model needs: nothing is trained then. */
  encode(samples: readonly StreamedSample[]): B | null;
  /** One update, with so much of the weight of L_RL (0 to 1). @throws DivergedError when a number is not finite; the weights stay as they were */
  step(batch: B, groups: readonly RewardBatch[], rlShare: number): Promise<StepOutcome>;
  save(): Promise<LearnerState>;
  restore(state: LearnerState): Promise<void>;
  /** null while the model cannot be published yet, with the reason. */
  publishable(): string | null;
  exportFiles(policyVersion: string): Promise<Map<string, Uint8Array>>;
  /** Sliding predict-then-train figures, the row of all scenarios first. */
  figures(): MetricRow[];
  close(): Promise<void>;
}
