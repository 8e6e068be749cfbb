/**
 * What trains a model: everything that is specific to onnxruntime or TensorFlow lies behind this. A model comes as functions
 * over `Ops`; the engine owns weights, moments and buffers, and gives figures as plain arrays.
 */
import type { Ops } from '../ops.ts';
import type { AdamWOptions } from '../optimizers/adamw.ts';
import type { Arrays, StepOutcome } from './ort-sessions.ts';

export type { Arrays, StepOutcome } from './ort-sessions.ts';

/** A model's training pass: what it returns by name, and the scalar that is minimised. */
export interface ModelPass<T> {
  loss: T;
  metrics: Readonly<Record<string, T>>;
}
export type PassBuilder = <T>(ops: Ops<T>) => ModelPass<T>;
export type ForwardBuilder = <T>(ops: Ops<T>) => Readonly<Record<string, T>>;

export interface EngineStart {
  /** The training pass that is known as `name`; it must touch every parameter. */
  name: string;
  pass: PassBuilder;
  /** Of the initial weights: engines start from the same bits. */
  seed: number;
  /** Threads of one operator, where the engine lets one choose. */
  numThreads: number;
  adamw: AdamWOptions;
  /** Multiplies the learning rate of a parameter. */
  rate(parameter: string): number;
}

export interface TrainingEngine {
  /** What runs where, for logs. */
  readonly description: string;
  /** Whether it computes on an accelerator. */
  readonly onDevice: boolean;
  /** Another training pass over the same parameters. */
  addPass(name: string, pass: PassBuilder): Promise<void>;
  addForward(name: string, build: ForwardBuilder): Promise<void>;
  /**
   * One update. The feeds are handed over: the caller must not use them again.
   * @throws DivergedError, and keeps the weights, when a metric or the gradient norm is not finite
   */
  step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome>;
  /** Gradients of a batch without an update. */
  gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>>;
  forward(name: string, feeds: Arrays): Promise<Arrays>;
  /** Weights, AdamW moments as m.<name> and v.<name>, and buffers: the same names in every engine. */
  state(): Promise<{ tensors: Map<string, Float32Array>; step: number }>;
  /** @throws StateError when names or sizes do not fit; nothing changed then */
  restore(tensors: ReadonlyMap<string, Float32Array>, step: number): Promise<void>;
  close(): Promise<void>;
}
