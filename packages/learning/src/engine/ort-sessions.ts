/**
 * Training on onnxruntime's CPU provider: owns the weights and runs the steps. Lives inside a worker (ort-worker.ts), because
 * `session.run` blocks the thread that calls it.
 *
 * One step: loss and gradients (one session) -> gradient rows added up per table -> AdamW in place, the last two by the kernels
 * of optimizers/kernels.ts. Weights, moments and gradients lie in the kernels' memory; the session reads and writes there.
 * Nothing is written to the weights before loss and gradient norm were found finite.
 */
import * as ort from 'onnxruntime-node';
import { initialWeights } from '../initial-weights.ts';
import { sizeOf } from '../onnx/graph-builder.ts';
import type { Shape } from '../ops.ts';
import { adamwFactors } from '../optimizers/adamw.ts';
import { KernelMemory } from '../optimizers/kernels.ts';
import type { Place } from '../optimizers/wasm-arrays.ts';
import { DivergedError, StateError } from '../trainer-ports.ts';
import type { ForwardGraph, GradientGraph, TensorSpec, TrainingProgram } from './program.ts';

export type Arrays = Record<string, Float32Array | Int32Array>;
export interface StepOutcome {
  metrics: Arrays;
  gradNorm: number;
  stepMs: number;
}

/** Where onnxruntime runs the graphs. Weights and optimizer stay in CPU memory, so a device copies them on every step. */
export type Provider = 'cpu' | 'cuda' | 'webgpu';

/** Options of a session on the CPU or with a device for what it has kernels for: no spinning threads, which would take the cores of other processes. */
export function cpuSession(
  numThreads: number,
  provider: Provider = 'cpu',
): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: provider === 'cpu' ? ['cpu'] : [provider, 'cpu'],
    intraOpNumThreads: numThreads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
  };
}

export const tensorOf = (data: Float32Array | Int32Array, shape: readonly number[]): ort.Tensor =>
  data instanceof Float32Array
    ? new ort.Tensor('float32', data, shape)
    : new ort.Tensor('int32', data, shape);
const empty = ({ shape, dtype }: Pick<TensorSpec, 'shape' | 'dtype'>): ort.Tensor =>
  tensorOf(dtype === 'int32' ? new Int32Array(sizeOf(shape)) : new Float32Array(sizeOf(shape)), shape);

/** Names of the moments of a parameter in a saved state. */
const momentNames = (parameter: string): [string, string] => [`m.${parameter}`, `v.${parameter}`];

interface LoadedForward {
  graph: ForwardGraph;
  session: ort.InferenceSession;
}
interface LoadedGradient extends LoadedForward {
  graph: GradientGraph;
  /** Outputs in the kernels' memory: ids and rows. */
  places: ReadonlyMap<string, Place>;
  /** All other outputs but the dense gradients. */
  figures: Readonly<Record<string, ort.Tensor>>;
}

export class OrtSessions {
  readonly #program: TrainingProgram;
  readonly #numThreads: number;
  readonly #provider: Provider;
  readonly #memory = new KernelMemory();
  readonly #gradients = new Map<string, LoadedGradient>();
  readonly #forwards = new Map<string, LoadedForward>();
  /** Weights and, by their `momentNames`, moments. */
  readonly #state: ReadonlyMap<string, Place>;
  readonly #gradientOf: ReadonlyMap<string, Place>;
  readonly #buffers = new Map<string, Float32Array>();
  readonly #shapes: ReadonlyMap<string, Shape>;
  #step = 0;

  /** @param seed of the initial weights */
  constructor(program: TrainingProgram, seed: number, numThreads: number, provider: Provider = 'cpu') {
    this.#provider = provider;
    this.#program = program;
    this.#numThreads = numThreads;
    const { parameters, buffers } = program;
    this.#shapes = new Map([...parameters, ...buffers].map(({ name, shape }) => [name, shape]));
    const names = parameters.flatMap(({ name }) => [name, ...momentNames(name)]);
    const sizes = parameters.flatMap(({ shape }) => Array<number>(3).fill(sizeOf(shape)));
    this.#state = placed(this.#memory, names, sizes);
    this.#gradientOf = placed(
      this.#memory,
      parameters.map((p) => p.name),
      parameters.map((p) => sizeOf(p.shape)),
    );
    for (const { name, shape, init } of parameters)
      this.#values(name).set(initialWeights(seed, name, shape, init));
    for (const { name, shape, init } of buffers)
      this.#buffers.set(name, initialWeights(seed, name, shape, init));
  }

  async addGradient(name: string, graph: GradientGraph): Promise<void> {
    const session = await ort.InferenceSession.create(
      graph.model,
      cpuSession(this.#numThreads, this.#provider),
    );
    const inRows = new Set(graph.tables.flatMap(({ uses }) => uses.flatMap((use) => [use.ids, use.rows])));
    const isDense = new Set(Object.values(graph.dense));
    const rows = graph.outputs.filter((spec) => inRows.has(spec.name));
    const figures = graph.outputs.filter((spec) => !inRows.has(spec.name) && !isDense.has(spec.name));
    this.#gradients.set(name, {
      graph,
      session,
      places: placed(
        this.#memory,
        rows.map((spec) => spec.name),
        rows.map((spec) => sizeOf(spec.shape)),
      ),
      figures: Object.fromEntries(figures.map((spec) => [spec.name, empty(spec)])),
    });
  }

  async addForward(name: string, graph: ForwardGraph): Promise<void> {
    const session = await ort.InferenceSession.create(
      graph.model,
      cpuSession(this.#numThreads, this.#provider),
    );
    this.#forwards.set(name, { graph, session });
  }

  /** @throws DivergedError, and keeps the weights, when a metric or the gradient norm is not finite */
  async step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome> {
    const startedMs = performance.now();
    const { graph, figures } = await this.#computeGradients(name, feeds);
    const t = this.#step + 1;
    const metrics: Arrays = {};
    for (const metric of graph.metrics) {
      const data = figures[metric]!.data as Float32Array | Int32Array;
      if (data instanceof Float32Array && !data.every(Number.isFinite))
        throw diverged(t, `${metric} is not finite`);
      metrics[metric] = data;
    }
    const { parameters, adamw } = this.#program;
    const squares = parameters.map((p) => this.#memory.sumOfSquares(this.#gradient(p.name)));
    const gradNorm = Math.sqrt(squares.reduce((a, b) => a + b, 0));
    if (!Number.isFinite(gradNorm)) throw diverged(t, `the gradient norm is ${gradNorm}`);
    for (const parameter of parameters) {
      const [moment1, moment2] = momentNames(parameter.name).map((key) => this.#values(key)) as [
        Float32Array,
        Float32Array,
      ];
      const factors = adamwFactors(adamw, { t, learningRate, gradNorm }, parameter);
      const gradient = this.#gradient(parameter.name);
      this.#memory.adamw(this.#values(parameter.name), moment1, moment2, gradient, factors);
    }
    for (const [buffer, output] of Object.entries(graph.assigned))
      this.#buffers.get(buffer)!.set(figures[output]!.data as Float32Array);
    this.#step = t;
    return { metrics, gradNorm, stepMs: performance.now() - startedMs };
  }

  /** Gradients of a batch without an update, copied: for tests and studies. */
  async gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>> {
    await this.#computeGradients(name, feeds);
    return Object.fromEntries(
      this.#program.parameters.map((p) => [p.name, this.#gradient(p.name).slice()] as const),
    );
  }

  async forward(name: string, feeds: Arrays): Promise<Arrays> {
    const { graph, session } = this.#forwards.get(name)!;
    const result = await session.run(this.#feed(graph, feeds));
    return Object.fromEntries(
      graph.outputs.map(({ name: output }) => [output, result[output]!.data as Float32Array | Int32Array]),
    );
  }

  state(): { tensors: Map<string, Float32Array>; step: number } {
    const tensors = new Map(this.#named().map(([name, values]) => [name, values.slice()]));
    return { tensors, step: this.#step };
  }

  restore(tensors: ReadonlyMap<string, Float32Array>, step: number): void {
    const named = this.#named();
    for (const [name, values] of named) {
      const saved = tensors.get(name);
      if (saved?.length !== values.length)
        throw new StateError(
          `The saved state has ${saved ? `${saved.length} values` : 'nothing'} for ${name}, which has ${values.length}. It belongs to another preset, code count or version of the model.`,
        );
    }
    for (const [name, values] of named) values.set(tensors.get(name)!);
    this.#step = step;
  }

  async close(): Promise<void> {
    for (const { session } of [...this.#gradients.values(), ...this.#forwards.values()])
      await session.release();
  }

  async #computeGradients(name: string, feeds: Arrays): Promise<LoadedGradient> {
    const loaded = this.#gradients.get(name)!;
    const { graph, session, places, figures } = loaded;
    const fetches: Record<string, ort.Tensor> = { ...figures };
    for (const [parameter, output] of Object.entries(graph.dense))
      fetches[output] = tensorOf(this.#gradient(parameter), this.#shapes.get(parameter)!);
    for (const { name: output, shape, dtype } of graph.outputs) {
      const place = places.get(output);
      if (place)
        fetches[output] = tensorOf(
          dtype === 'int32' ? this.#memory.ints(place) : this.#memory.floats(place),
          shape,
        );
    }
    await session.run(this.#feed(graph, feeds), fetches);
    for (const { table, uses } of graph.tables) {
      const sum = this.#gradient(table).fill(0);
      for (const { ids, rows } of uses)
        this.#memory.addRows(
          sum,
          this.#memory.ints(places.get(ids)!),
          this.#memory.floats(places.get(rows)!),
        );
    }
    for (const parameter of graph.unused) this.#gradient(parameter).fill(0);
    return loaded;
  }

  #feed(graph: ForwardGraph, arrays: Arrays): Record<string, ort.Tensor> {
    const feeds: Record<string, ort.Tensor> = {};
    for (const { name, shape } of graph.feeds) {
      const data = arrays[name];
      if (data?.length !== sizeOf(shape))
        throw new Error(
          `Input ${name} has shape [${shape}], got ${data ? `${data.length} values` : 'nothing'}`,
        );
      feeds[name] = tensorOf(data, shape);
    }
    for (const name of graph.weights)
      feeds[name] = tensorOf(this.#buffers.get(name) ?? this.#values(name), this.#shapes.get(name)!);
    return feeds;
  }

  /** Weights, moments and buffers, in the order of a saved state. */
  #named(): [string, Float32Array][] {
    return [
      ...[...this.#state.keys()].map((name) => [name, this.#values(name)] as [string, Float32Array]),
      ...this.#buffers,
    ];
  }
  /** Views are made anew for each use: the memory moves when it grows. */
  #values(name: string): Float32Array {
    return this.#memory.floats(this.#state.get(name)!);
  }
  #gradient(parameter: string): Float32Array {
    return this.#memory.floats(this.#gradientOf.get(parameter)!);
  }
}

function placed(
  memory: KernelMemory,
  names: readonly string[],
  sizes: readonly number[],
): Map<string, Place> {
  const places = memory.reserve(sizes);
  return new Map(names.map((name, i) => [name, places[i]!]));
}
const diverged = (step: number, what: string): DivergedError =>
  new DivergedError(
    `Step ${step}: ${what}; the weights stay as they were. Lower the learning rate or restore a checkpoint.`,
  );
