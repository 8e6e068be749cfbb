/**
 * Trains any model that is written over `Ops` on any engine: for studies on fixed data sets, where a run is a number of
 * epochs and the caller owns batches, learning rate and checkpoints.
 */

import { startConfiguredEngine } from './engine/choose-engine.ts';
import { compileGradient } from './engine/program.ts';
import type { Arrays, ForwardBuilder, PassBuilder, TrainingEngine } from './engine/training-engine.ts';
import { uniform } from './initial-weights.ts';
import { DROPOUT_INPUT, DropoutMasks } from './layers/dropout.ts';
import { sizeOf } from './onnx/graph-builder.ts';
import type { AdamWOptions } from './optimizers/adamw.ts';
import type { EngineOptions } from './trainer-ports.ts';

export type { Arrays } from './engine/training-engine.ts';

/** A graph without gradients: what it returns by name. */
export type ForwardPass = ForwardBuilder;

export interface ModelTrainerOptions {
  train: PassBuilder;
  /** Graphs without gradients, by name. */
  forwards: Readonly<Record<string, ForwardPass>>;
  adamw: AdamWOptions;
  /** Seeds the initial weights and the masks of dropout. */
  seed: number;
  /** Of dropout; as given to the model. */
  dropout: number;
  engine?: EngineOptions;
}

export interface ModelState {
  /** Weights, and their moments under optimizer names. */
  tensors: Map<string, Float32Array>;
  step: number;
}

export class ModelTrainer {
  readonly #engine: TrainingEngine;
  readonly #seed: number;
  readonly #masks: DropoutMasks;
  readonly #sites: readonly { name: string; size: number }[];
  /** Trained numbers. */
  readonly parameters: number;
  /** Updates done. */
  step = 0;

  private constructor(
    engine: TrainingEngine,
    { seed, dropout }: ModelTrainerOptions,
    sites: readonly { name: string; size: number }[],
    parameters: number,
  ) {
    this.#engine = engine;
    this.#seed = seed;
    this.#sites = sites;
    this.parameters = parameters;
    const most = sites.reduce((max, site) => Math.max(max, site.size), 0);
    this.#masks = new DropoutMasks(dropout, most, uniform(seed, 'dropout bank'));
  }

  static async start(options: ModelTrainerOptions): Promise<ModelTrainer> {
    const { train, seed, adamw } = options;
    const engine = await startConfiguredEngine(
      { name: 'train', pass: train, seed, adamw, rate: () => 1 },
      options.engine,
    );
    for (const [name, build] of Object.entries(options.forwards)) await engine.addForward(name, build);
    // Whatever engine computes: what a model needs is read off its graph.
    const { gradient, graph } = compileGradient((ops) => train(ops));
    const sites = gradient.feeds
      .filter((feed) => feed.name.startsWith(DROPOUT_INPUT))
      .map((feed) => ({ name: feed.name, size: sizeOf(feed.shape) }));
    const parameters = [...graph.parameters.values()].reduce((sum, p) => sum + sizeOf(p.shape), 0);
    return new ModelTrainer(engine, options, sites, parameters);
  }

  /** One update; masks of dropout are a function of (seed, step). The feeds are handed over. @throws DivergedError */
  async train(feeds: Arrays, learningRate: number): Promise<Arrays> {
    const next = uniform(this.#seed, `dropout of step ${this.step}`);
    for (const { name, size } of this.#sites) feeds[name] = this.#masks.draw(size, next);
    const { metrics } = await this.#engine.step('train', feeds, learningRate);
    this.step++;
    return metrics;
  }
  /** The feeds are handed over. */
  forward(name: string, feeds: Arrays): Promise<Arrays> {
    return this.#engine.forward(name, feeds);
  }
  state(): Promise<ModelState> {
    return this.#engine.state();
  }
  /** @throws StateError when the state belongs to a model of other sizes */
  async restore({ tensors, step }: ModelState): Promise<void> {
    await this.#engine.restore(tensors, step);
    this.step = step;
  }
  close(): Promise<void> {
    return this.#engine.close();
  }
}
