/**
 * The trainer's surface: what a service gives a training step and what it gets back. Built by `createRetrievalTrainer` and
 * `createRankerTrainer` (trainer-api.ts). Weights stay in a worker thread between steps; they cross only in `state()`,
 * `restore()` and the exports.
 *
 * All calls are queued: a step that is asked for while another runs starts after it. Every method rejects after `close()`.
 */
import type { ItemTensors, NumCodes, RequestTensors, SidCodes } from '@onemall/features';
import type { Prediction } from './fuse-reward.ts';
import type {
  RankerPreset,
  RankerPresetName,
  RetrievalPreset,
  RetrievalPresetName,
} from './models/presets.ts';
import type { PolicyNormalizer } from './policy-ports.ts';
import type { RequestOrder } from './prediction-window.ts';

/** Where and how the graph runs. */
export interface EngineOptions {
  /** Threads of one operator; default 1. Results at 1 thread are bit-exact from run to run. */
  intraOpNumThreads?: number;
  /** An engine by name, or `auto` for the first that works of all of them. Default cpu: onnxruntime, bit-exact at 1 thread. */
  name?: EngineName | 'auto';
  /** Told once what was chosen and why the engines before it in the order were not. */
  onChosen?(choice: { name: EngineName; description: string; passedOver: readonly PassedOver[] }): void;
}

/** tensorflow: TensorFlow's library; cuda, webgpu, cpu: onnxruntime; wasm: TensorFlow.js in WebAssembly. In order of preference. */
export const engineNames = ['tensorflow', 'cuda', 'webgpu', 'cpu', 'wasm'] as const;
export type EngineName = (typeof engineNames)[number];
export interface PassedOver {
  name: EngineName;
  reason: string;
}

/** AdamW (Loshchilov and Hutter 2019) with linear warm-up and clipping of the global gradient norm. */
export interface OptimizerOptions {
  /** Default of the preset. */
  learningRate?: number;
  /** Steps of linear warm-up from 0; default 100. */
  warmupSteps?: number;
  /** Step at which the rate has fallen to 5 % by half a cosine, where the end of the training is known; default: never. */
  decaySteps?: number;
  /** Decoupled; default 0.01. Not applied to norm gains, biases and embedding tables. */
  weightDecay?: number;
  /** Upper bound of the global gradient norm; default 1. */
  maxGradNorm?: number;
  /** Multiplies the learning rate of the item tower (the paper's live tower learns more slowly); default 1. */
  itemTowerRate?: number;
}

/** How reward groups enter the loss. */
export interface RlOptions {
  /** grpo: paper equation 10 in the standard form; dpo: equation 9, candidate 0 of each group is o+, the others o-. */
  form: 'grpo' | 'dpo';
  /** Groups per step at most; more make `step` reject. Default 2. */
  maxGroups?: number;
  /** Candidates per group at most. Default 16 for grpo, 5 for dpo. */
  candidatesPerGroup?: number;
  /** L_RL is divided by rlFraction x batch size. Default 0.02. */
  fraction?: number;
  /** Lower clip of grpo; default 0.2. */
  epsilon?: number;
  /** Upper clip of grpo; default 0.28. */
  epsilonHigh?: number;
  /** lambda of dpo; default 0.2. */
  dpoLambda?: number;
}

export interface RetrievalTrainerOptions {
  /** A name of `retrievalPresets`, or sizes of your own. */
  preset: RetrievalPresetName | RetrievalPreset;
  /** In the order of their embeddings; fixed for the life of a checkpoint. */
  scenarios: readonly string[];
  /** Codes per level by scenario. */
  numCodes: NumCodes;
  /** Seeds the initial weights. */
  seed: number;
  /** Samples per step; default of the preset. A smaller batch is padded with weight 0. */
  batchSize?: number;
  /** Events per behaviour; default of the preset. `RequestTensors` must have this length. */
  historyLength?: number;
  /**
   * What the softmax of a level runs over in training. codes (default): all codes of the scenario; trie: those that continue a
   * SID that exists, which every sample and candidate then brings as `children`. Search with the same scores: `beamSearch`.
   */
  normalizer?: 'codes' | 'trie';
  /** Whether a step also counts the hits among the `children` that samples bring; at the first level they are the scenario's. Default no. */
  maskedAccuracy?: boolean;
  rl?: RlOptions;
  optimizer?: OptimizerOptions;
  engine?: EngineOptions;
}

/** The codes that may stand at a level after the target's own codes before it, as of the request. */
export interface LevelCodes {
  codes: Int32Array;
  /** log weight of each, added to the model's scores: how often they come up for anyone, say. Default 0. */
  logWeights?: Float32Array;
}
/** By level; without a target among them it counts with weight 1. */
export type SidChildren = readonly [LevelCodes, LevelCodes, LevelCodes];

/** One positive to learn from. */
export interface RetrievalSample {
  request: RequestTensors;
  /** SID of the item as of the request, in the trainer's codebook version. */
  target: SidCodes;
  item: ItemTensors;
  itemId: string;
  /** Weight in L_NTP and L_contrastive; default 1. */
  weight?: number;
  /** For normalizer trie, and for maskedAccuracy, which passes over a sample without. */
  children?: SidChildren;
}

/** Scored candidates of one request, already selected (see `selectGrpoCandidates`, `selectDpoCandidates`). */
export interface RewardGroup {
  request: RequestTensors;
  candidates: readonly {
    /** Codes within the request's scenario. */
    codes: readonly [number, number, number];
    /** log pi_ref(o): sum over the three levels, under the policy that made the rollout. */
    refLogProb: number;
    advantage: number;
    /** As of a sample. */
    children?: SidChildren;
  }[];
}

export interface RetrievalBatch {
  /** At most batchSize. */
  samples: readonly RetrievalSample[];
  /** At most rl.maxGroups; empty or absent when there are none. */
  groups?: readonly RewardGroup[];
}

export interface RetrievalStepOptions {
  /** Weight of L_RL in the total (paper: 0.5); 0 switches it off for this step. Default 0.5. */
  rlWeight?: number;
}

/** Figures of one scenario in one batch, by level. */
export interface ScenarioFigures {
  samples: number;
  /**
   * Samples whose target scores best among all codes of the scenario, given its codes before, before the update; with normalizer trie
   * by the scores alone, without the weights of children.
   */
  hits: [number, number, number];
  /**
   * Those of them that brought `children`, at most 512 after a code, where `maskedAccuracy` asks for these figures; with normalizer
   * trie all.
   */
  maskedSamples: number;
  /** Of these, those whose target scores best among the children; with normalizer trie by scores and weights, as the softmax does. */
  maskedHits: [number, number, number];
  /** Samples whose own path is not whole in the `children` that they brought; where these mask, it was added. */
  outsideTrie: number;
  /** Mean cross-entropy in nats. */
  ntp: [number, number, number];
}

/** Everything here was computed with the weights before the update of this step (predict, then train). */
export interface RetrievalStepResult {
  /** Updates done, this one included. */
  step: number;
  loss: {
    /** L = rlWeight x L_RL + L_NTP + L_contrastive. */
    total: number;
    /** Sum over the levels of the weighted mean cross-entropy, nats. */
    ntp: number;
    ntpByLevel: [number, number, number];
    contrastive: number;
    rl: number;
  };
  /** Only scenarios that the batch holds. */
  byScenario: Record<string, ScenarioFigures>;
  /** float32 [samples, 3] log p(target code | prefix). */
  tokenLogProbs: Float32Array;
  /** Share of samples whose own item wins the in-batch contrast. */
  contrastAccuracy: number;
  /** Before clipping. */
  gradNorm: number;
  learningRate: number;
  /** Mean over samples of the entropy per level, nats. */
  entropy: [number, number, number];
  /** null when the batch held no groups. */
  rl: {
    groups: number;
    candidates: number;
    /** Mean over the groups of their loss: L_RL before the division by rlFraction x B. */
    lossPerGroup: number;
    /** Mean of rho = pi / pi_ref. */
    meanRatio: number;
    /** Mean of rho^-1 - 1 + log rho, an estimate of KL(pi || pi_ref) over the listed candidates (Schulman's k3). */
    kl: number;
    /** Largest |log rho| before the clamp. */
    maxAbsLogRatio: number;
    /** Share of candidates whose gradient the clip removes. */
    clipShare: number;
    /** Of the candidates that entered, after selection; dpo does not read them. */
    advantages: { mean: number; std: number; maxAbs: number };
    /** float32 [candidates] log pi(o), in the order of the groups. */
    logProbs: Float32Array;
  } | null;
  experts: {
    /** [layers][experts] token and expert pairs routed, padding not counted. */
    loads: number[][];
    /** Greatest over the layers. */
    maxOverMean: number;
    /** Pairs dropped because an expert was full. */
    overflow: number;
  };
  /** Wall time of the step in the worker. */
  stepMs: number;
}

/** Everything a checkpoint needs for a bit-exact resume: weights, AdamW moments, balancing biases, item frequencies. */
export interface TrainerState {
  tensors: Map<string, Float32Array>;
  /** step, and hyper-parameters that must match at restore. */
  scalars: Record<string, number>;
}

export interface RetrievalExport {
  policyVersion: string;
  codebookVersions: Record<string, number>;
  /** Ascending; one pair of decode graphs each. Default [64]. */
  beamWidths?: readonly number[];
  /**
   * Adds graphs plain-<level>-<width> that read whole prefixes and keep nothing between levels: a reference for other
   * runtimes and for benchmarks.
   */
  plainDecoders?: boolean;
  /**
   * Said in the manifest, so that whoever serves the policy searches with it; default that of the training. After a training over
   * the children in a trie `codes` is refused.
   */
  normalizer?: PolicyNormalizer;
  /** Names the SIDs whose trie masked the training (a hash of them, say); needed after a training with normalizer trie. */
  trieVersion?: string;
}

export interface RetrievalTrainer {
  readonly batchSize: number;
  readonly historyLength: number;
  /** Updates done so far; 0 for a new trainer. */
  readonly steps: number;
  /**
   * One forward, backward and AdamW step.
   * @throws BatchError when the batch does not fit the static shapes or holds codes outside numCodes; nothing changed
   * @throws DivergedError when loss or gradients are not finite; the weights stay those of the step before
   */
  step(batch: RetrievalBatch, options?: RetrievalStepOptions): Promise<RetrievalStepResult>;
  /**
   * Teacher-forced log p per level, and the code that scores best of all codes of the sample's scenario, without an update.
   * @returns tokenLogProbs float32 [samples, 3], predictions int32 [samples, 3]
   */
  evaluate(
    samples: readonly RetrievalSample[],
  ): Promise<{ tokenLogProbs: Float32Array; predictions: Int32Array }>;
  /** f_item (paper, equation 4), L2-normalised, with the current weights. @returns float32 [items, dim] */
  embedItems(items: readonly ItemTensors[]): Promise<{ dim: number; vectors: Float32Array }>;
  /** A copy; later steps do not change it. */
  state(): Promise<TrainerState>;
  /** @throws StateError when names, sizes or hyper-parameters do not fit; nothing changed then. */
  restore(state: TrainerState): Promise<void>;
  /**
   * Files of a published policy: context.onnx, decode-0.onnx, decode-<level>-<width>.onnx, item-tower.onnx, policy.json.
   * @throws Error where normalizer and trieVersion do not go with the training
   */
  exportPolicy(options: RetrievalExport): Promise<Map<string, Uint8Array>>;
  close(): Promise<void>;
}

export interface RankerTrainerOptions {
  preset: RankerPresetName | RankerPreset;
  scenarios: readonly string[];
  seed: number;
  batchSize?: number;
  optimizer?: OptimizerOptions;
  engine?: EngineOptions;
}

/** One FINAL sample: what an exposure led to. */
export interface RankerSample {
  scenario: string;
  /** Samples without one count in no figure that looks within a request. */
  requestId?: string;
  /** float32 [NUM_DENSE] and int32 [NUM_IDS] of `rankerFeatures`. */
  dense: Float32Array;
  ids: Int32Array;
  clicked: boolean;
  /** Bought within the window of the exposure (CTCVR: a click before is not asked for). */
  bought: boolean;
  /** Total paid in minor units; read only where bought. */
  buyValueCents: number;
  weight?: number;
}

export interface RankerStepResult {
  step: number;
  loss: {
    total: number;
    /** Binary cross-entropy of the click, nats. */
    click: number;
    /** Binary cross-entropy of the buy, nats. */
    buy: number;
    /** Squared error of log1p(value) over the bought, in units of the preset's value scale. */
    value: number;
  };
  /** Predictions before the update; float32 [samples] each. */
  pCtr: Float32Array;
  pCtcvr: Float32Array;
  buyValueCents: Float32Array;
  gradNorm: number;
  learningRate: number;
  stepMs: number;
}

export interface RankerExport {
  rankerVersion: string;
  /** S by scenario (model.md, RL); where absent the estimate over the latest predictions. */
  egpmScale?: Record<string, number>;
}

export interface RankerTrainer {
  readonly batchSize: number;
  readonly steps: number;
  /** @throws BatchError, DivergedError as for the retriever */
  step(samples: readonly RankerSample[]): Promise<RankerStepResult>;
  /**
   * Over the latest predictions made before their update (at most 20,000 a scenario): `<scenario>.aucClick`, `.aucBuy`,
   * `.calibrationClick`, `.calibrationBuy` (sum of the predictions over that of the labels), `.calibrationValue` (the same of the value
   * given a buy, over what was bought), `.calibrationEgpm` (of pCtcvr x value, against what was paid, over all), `.samples`. A figure
   * without positives is left out, AUC also without negatives.
   */
  metrics(): Record<string, number>;
  /**
   * Over the same predictions: how far a reward orders the exposures of one request as its outcomes do; null before two requests
   * tell. @param rewardOf of a prediction, and of an outcome (clicked and bought as 0 or 1, the value paid)
   */
  requestOrder(scenario: string, rewardOf: (prediction: Prediction) => number): RequestOrder | null;
  state(): Promise<TrainerState>;
  restore(state: TrainerState): Promise<void>;
  /** Files of a published ranker: ranker.onnx, ranker-wide.onnx, ranker.json. */
  exportRanker(options: RankerExport): Promise<Map<string, Uint8Array>>;
  close(): Promise<void>;
}

/** The batch does not fit the trainer. */
export class BatchError extends Error {
  override name = 'BatchError';
}
/** A loss or gradient is not finite. */
export class DivergedError extends Error {
  override name = 'DivergedError';
}
/** A state does not belong to this trainer. */
export class StateError extends Error {
  override name = 'StateError';
}
/** The files of a published model are corrupt, incomplete or of another version. */
export class PublishedModelError extends Error {
  override name = 'PublishedModelError';
}

export type CreateRetrievalTrainer = (options: RetrievalTrainerOptions) => Promise<RetrievalTrainer>;
export type CreateRankerTrainer = (options: RankerTrainerOptions) => Promise<RankerTrainer>;
