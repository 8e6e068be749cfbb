/**
 * Training on onnxruntime: owns the weights and runs the sessions of one step. Lives inside a worker (ort-worker.ts), because
 * `session.run` blocks the thread that calls it.
 *
 * One step: gradients (one session) -> row gradients added up per table (one single-thread session each, side by side) ->
 * AdamW (one session). Every large output is written into memory allocated once; weights and moments alternate between two
 * sets, so that a step that diverges leaves the old set untouched.
 */
import * as ort from 'onnxruntime-node';
import { initialWeights } from '../initial-weights.ts';
import { optimizerNames } from '../onnx/adamw.ts';
import { sizeOf } from '../onnx/graph-builder.ts';
import { DivergedError, StateError } from '../trainer-ports.ts';
import type { ForwardGraph, GradientGraph, TensorSpec, TrainingProgram } from './program.ts';

export type Arrays = Record<string, Float32Array | Int32Array>;
export interface StepOutcome {
  metrics: Arrays;
  gradNorm: number;
  stepMs: number;
}

/** Options of a CPU session: no spinning threads, which would take the cores of other processes. */
export function cpuSession(numThreads: number): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: ['cpu'],
    intraOpNumThreads: numThreads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
  };
}

/** For graphs in which the optimizer of onnxruntime finds nothing to fuse: looking for it would only delay the start. */
const asIs = (numThreads: number): ort.InferenceSession.SessionOptions => ({
  ...cpuSession(numThreads),
  graphOptimizationLevel: 'disabled',
});

export const tensorOf = (data: Float32Array | Int32Array, shape: readonly number[]): ort.Tensor =>
  data instanceof Float32Array
    ? new ort.Tensor('float32', data, shape)
    : new ort.Tensor('int32', data, shape);
const scalar = (value: number): ort.Tensor => tensorOf(Float32Array.of(value), []);
const empty = ({ shape, dtype }: Pick<TensorSpec, 'shape' | 'dtype'>): ort.Tensor =>
  tensorOf(dtype === 'int32' ? new Int32Array(sizeOf(shape)) : new Float32Array(sizeOf(shape)), shape);

interface LoadedForward {
  graph: ForwardGraph;
  session: ort.InferenceSession;
}
interface LoadedGradient {
  graph: GradientGraph;
  session: ort.InferenceSession;
  outputs: Record<string, ort.Tensor>;
  scatters: {
    table: string;
    session: ort.InferenceSession;
    feeds: Record<string, ort.Tensor>;
    out: ort.Tensor;
  }[];
  gradients: Record<string, ort.Tensor>;
}

export class OrtSessions {
  readonly #program: TrainingProgram;
  readonly #numThreads: number;
  readonly #optimizer: ort.InferenceSession;
  readonly #gradients = new Map<string, LoadedGradient>();
  readonly #forwards = new Map<string, LoadedForward>();
  /** Weights, `m.` and `v.` moments and buffers of the present and, after a step, of the past. */
  #current: Record<string, ort.Tensor> = {};
  #spare: Record<string, ort.Tensor> = {};
  #step = 0;

  private constructor(program: TrainingProgram, numThreads: number, optimizer: ort.InferenceSession) {
    this.#program = program;
    this.#numThreads = numThreads;
    this.#optimizer = optimizer;
  }

  static async create(program: TrainingProgram, seed: number, numThreads: number): Promise<OrtSessions> {
    const optimizer = await ort.InferenceSession.create(program.optimizer, asIs(numThreads));
    const sessions = new OrtSessions(program, numThreads, optimizer);
    for (const { name, shape, init } of program.parameters) {
      const names = optimizerNames(name);
      sessions.#current[name] = tensorOf(initialWeights(seed, name, shape, init), shape);
      for (const key of [names.moment1, names.moment2])
        sessions.#current[key] = empty({ shape, dtype: 'float32' });
      for (const key of [name, names.moment1, names.moment2])
        sessions.#spare[key] = empty({ shape, dtype: 'float32' });
    }
    for (const { name, shape, init } of program.buffers)
      sessions.#current[name] = tensorOf(initialWeights(seed, name, shape, init), shape);
    return sessions;
  }

  async addGradient(name: string, graph: GradientGraph): Promise<void> {
    const session = await ort.InferenceSession.create(graph.model, cpuSession(this.#numThreads));
    const outputs = Object.fromEntries(graph.outputs.map((spec) => [spec.name, empty(spec)]));
    const shapeOf = new Map(this.#program.parameters.map((p) => [p.name, p.shape]));
    const zero = (parameter: string) => empty({ shape: shapeOf.get(parameter)!, dtype: 'float32' });
    const scatters = await Promise.all(
      graph.tables.map(async ({ table, model, uses }) => ({
        table,
        session: await ort.InferenceSession.create(model, asIs(1)),
        feeds: Object.fromEntries(
          uses.flatMap((use, i) => [
            [`ids.${i}`, outputs[use.ids]!],
            [`rows.${i}`, outputs[use.rows]!],
          ]),
        ),
        out: zero(table),
      })),
    );
    const gradients = Object.fromEntries([
      ...Object.entries(graph.dense).map(([parameter, output]) => [parameter, outputs[output]!]),
      ...scatters.map(({ table, out }) => [table, out]),
      ...graph.unused.map((parameter) => [parameter, zero(parameter)]),
    ]);
    this.#gradients.set(name, { graph, session, outputs, scatters, gradients });
  }

  async addForward(name: string, graph: ForwardGraph): Promise<void> {
    const session = await ort.InferenceSession.create(graph.model, cpuSession(this.#numThreads));
    this.#forwards.set(name, { graph, session });
  }

  /** @throws DivergedError, and keeps the weights, when a metric or the gradient norm is not finite */
  async step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome> {
    const startedMs = performance.now();
    const loaded = this.#gradients.get(name)!;
    await this.#computeGradients(loaded, feeds);
    const t = this.#step + 1;
    const { beta1, beta2 } = this.#program.adamw;
    const optimizerFeeds: Record<string, ort.Tensor> = {
      learningRate: scalar(learningRate),
      correction1: scalar(1 - beta1 ** t),
      correction2: scalar(1 - beta2 ** t),
    };
    const fetches: Record<string, ort.Tensor | null> = { gradNorm: null };
    for (const { name: parameter } of this.#program.parameters) {
      const names = optimizerNames(parameter);
      optimizerFeeds[names.gradient] = loaded.gradients[parameter]!;
      for (const key of [parameter, names.moment1, names.moment2]) optimizerFeeds[key] = this.#current[key]!;
      fetches[names.next] = this.#spare[parameter]!;
      fetches[names.nextMoment1] = this.#spare[names.moment1]!;
      fetches[names.nextMoment2] = this.#spare[names.moment2]!;
    }
    const result = await this.#optimizer.run(optimizerFeeds, fetches);
    const gradNorm = (result.gradNorm!.data as Float32Array)[0]!;
    const metrics: Arrays = {};
    for (const metric of loaded.graph.metrics) {
      const data = loaded.outputs[metric]!.data as Float32Array | Int32Array;
      if (data instanceof Float32Array && !data.every(Number.isFinite))
        throw new DivergedError(
          `Step ${t}: ${metric} is not finite; the weights stay as they were. Lower the learning rate or restore a checkpoint.`,
        );
      metrics[metric] = data;
    }
    if (!Number.isFinite(gradNorm))
      throw new DivergedError(
        `Step ${t}: the gradient norm is ${gradNorm}; the weights stay as they were. Lower the learning rate or restore a checkpoint.`,
      );
    for (const key of Object.keys(this.#spare))
      [this.#current[key], this.#spare[key]] = [this.#spare[key]!, this.#current[key]!];
    for (const [buffer, output] of Object.entries(loaded.graph.assigned))
      (this.#current[buffer]!.data as Float32Array).set(loaded.outputs[output]!.data as Float32Array);
    this.#step = t;
    return { metrics, gradNorm, stepMs: performance.now() - startedMs };
  }

  /** Gradients of a batch without an update, copied: for tests and studies. */
  async gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>> {
    const loaded = this.#gradients.get(name)!;
    await this.#computeGradients(loaded, feeds);
    return Object.fromEntries(
      Object.entries(loaded.gradients).map(([parameter, tensor]) => [
        parameter,
        (tensor.data as Float32Array).slice(),
      ]),
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
    const tensors = new Map(
      Object.entries(this.#current).map(([name, tensor]) => [name, (tensor.data as Float32Array).slice()]),
    );
    return { tensors, step: this.#step };
  }

  restore(tensors: ReadonlyMap<string, Float32Array>, step: number): void {
    for (const [name, tensor] of Object.entries(this.#current)) {
      const saved = tensors.get(name);
      if (saved?.length !== tensor.size)
        throw new StateError(
          `The saved state has ${saved ? `${saved.length} values` : 'nothing'} for ${name}, which has ${tensor.size}. It belongs to another preset, code count or version of the model.`,
        );
    }
    for (const [name, tensor] of Object.entries(this.#current))
      (tensor.data as Float32Array).set(tensors.get(name)!);
    this.#step = step;
  }

  async close(): Promise<void> {
    await this.#optimizer.release();
    for (const { session, scatters } of this.#gradients.values()) {
      await session.release();
      for (const scatter of scatters) await scatter.session.release();
    }
    for (const { session } of this.#forwards.values()) await session.release();
  }

  async #computeGradients(
    { graph, session, outputs, scatters }: LoadedGradient,
    feeds: Arrays,
  ): Promise<void> {
    await session.run(this.#feed(graph, feeds), outputs);
    await Promise.all(scatters.map(({ session, feeds, out }) => session.run(feeds, { gradient: out })));
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
    for (const name of graph.weights) feeds[name] = this.#current[name]!;
    return feeds;
  }
}
