/**
 * Trains any model that is written over `Ops` on onnxruntime: for studies on fixed data sets, where a run is a number of
 * epochs and the caller owns batches, learning rate and checkpoints.
 */

import { OrtEngine } from './engine/ort-engine.ts';
import type { Arrays } from './engine/ort-sessions.ts';
import { compileForward, compileGradient, compileOptimizer, type ModelPass } from './engine/program.ts';
import { uniform } from './initial-weights.ts';
import { DROPOUT_INPUT, DropoutMasks } from './layers/dropout.ts';
import type { Value } from './onnx/graph-builder.ts';
import { sizeOf } from './onnx/graph-builder.ts';
import type { Ops } from './ops.ts';
import type { AdamWOptions } from './optimizers/adamw.ts';

export type { Arrays } from './engine/ort-sessions.ts';

/** A graph without gradients: what it returns by name. */
export type ForwardPass = (ops: Ops<Value>) => Readonly<Record<string, Value>>;

export interface ModelTrainerOptions {
  train: (ops: Ops<Value>) => ModelPass;
  /** Graphs without gradients, by name. */
  forwards: Readonly<Record<string, ForwardPass>>;
  adamw: AdamWOptions;
  /** Seeds the initial weights and the masks of dropout. */
  seed: number;
  /** Of dropout; as given to the model. */
  dropout: number;
  numThreads?: number;
}

export interface ModelState {
  /** Weights, and their moments under optimizer names. */
  tensors: Map<string, Float32Array>;
  step: number;
}

export class ModelTrainer {
  readonly #engine: OrtEngine;
  readonly #seed: number;
  readonly #masks: DropoutMasks;
  readonly #sites: readonly { name: string; size: number }[];
  /** Trained numbers. */
  readonly parameters: number;
  /** Updates done. */
  step = 0;

  private constructor(
    engine: OrtEngine,
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
    const { gradient, graph } = compileGradient(options.train);
    const engine = await OrtEngine.start(
      compileOptimizer(graph, options.adamw, () => 1),
      options.seed,
      options.numThreads ?? 1,
    );
    await engine.addGradient('train', gradient);
    for (const [name, build] of Object.entries(options.forwards))
      await engine.addForward(name, compileForward(build));
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
