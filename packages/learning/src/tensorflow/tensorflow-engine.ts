/**
 * TensorFlow.js behind `TrainingEngine`. Graphs are built anew on every step, on whatever backend was loaded. It runs on the
 * calling thread, which is busy while a step runs.
 */
import type * as tfjs from '@tensorflow/tfjs';
import type {
  Arrays,
  EngineStart,
  ForwardBuilder,
  PassBuilder,
  StepOutcome,
  TrainingEngine,
} from '../engine/training-engine.ts';
import { initialWeights } from '../initial-weights.ts';
import { adamwFactors } from '../optimizers/adamw.ts';
import { DivergedError, StateError } from '../trainer-ports.ts';
import { type Tensorflow, TensorflowOps } from './tensorflow-ops.ts';

interface Parameter {
  weight: tfjs.Variable;
  moment1: tfjs.Variable;
  moment2: tfjs.Variable;
  decay: boolean;
  rate: number;
}

export class TensorflowEngine implements TrainingEngine {
  readonly description: string;
  readonly onDevice: boolean;
  readonly #tf: Tensorflow;
  readonly #start: EngineStart;
  readonly #passes = new Map<string, PassBuilder>();
  readonly #forwards = new Map<string, ForwardBuilder>();
  readonly #parameters = new Map<string, Parameter>();
  readonly #buffers = new Map<string, tfjs.Variable>();
  #step = 0;

  /** @param tf with its backend chosen and ready */
  constructor(tf: Tensorflow, start: EngineStart) {
    this.#tf = tf;
    this.#start = start;
    this.#passes.set(start.name, start.pass);
    this.onDevice = (tf.backend() as { isUsingGpuDevice?: boolean }).isUsingGpuDevice === true;
    this.description = `TensorFlow.js ${tf.version_core}, backend ${tf.getBackend()}`;
  }

  async addPass(name: string, pass: PassBuilder): Promise<void> {
    this.#passes.set(name, pass);
  }
  async addForward(name: string, build: ForwardBuilder): Promise<void> {
    this.#forwards.set(name, build);
  }

  async step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome> {
    const tf = this.#tf;
    const startedMs = performance.now();
    const t = this.#step + 1;
    const { metrics, gradients, assigned } = this.#differentiate(name, feeds);
    try {
      const figures: Arrays = {};
      for (const [metric, tensor] of Object.entries(metrics)) {
        const data = tensor.dataSync() as Float32Array | Int32Array;
        if (data instanceof Float32Array && !data.every(Number.isFinite))
          throw diverged(t, `${metric} is not finite`);
        figures[metric] = data.slice();
      }
      const gradNorm = tf.tidy(() => {
        const squares = [...gradients.values()].map((g) => tf.sum(tf.mul(g, g)));
        return Math.sqrt(tf.addN(squares).dataSync()[0]!);
      });
      if (!Number.isFinite(gradNorm)) throw diverged(t, `the gradient norm is ${gradNorm}`);
      for (const [parameter, state] of this.#parameters)
        this.#update(state, gradients.get(parameter), { t, learningRate, gradNorm });
      for (const [buffer, value] of assigned) this.#buffers.get(buffer)!.assign(value);
      this.#step = t;
      return { metrics: figures, gradNorm, stepMs: performance.now() - startedMs };
    } finally {
      tf.dispose([...Object.values(metrics), ...gradients.values(), ...assigned.values()]);
    }
  }

  async gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>> {
    const { metrics, gradients, assigned } = this.#differentiate(name, feeds);
    const copies = [...this.#parameters].map(([parameter, { weight }]) => {
      const gradient = gradients.get(parameter)?.dataSync() as Float32Array | undefined;
      return [parameter, gradient?.slice() ?? new Float32Array(weight.size)] as const;
    });
    this.#tf.dispose([...Object.values(metrics), ...gradients.values(), ...assigned.values()]);
    return Object.fromEntries(copies);
  }

  async forward(name: string, feeds: Arrays): Promise<Arrays> {
    const build = this.#forwards.get(name)!;
    return this.#tf.tidy(() => {
      const results = build(this.#ops(feeds, new Map()));
      return Object.fromEntries(
        Object.entries(results).map(([key, tensor]) => [key, tensor.dataSync().slice() as Float32Array]),
      );
    });
  }

  async state(): Promise<{ tensors: Map<string, Float32Array>; step: number }> {
    const tensors = new Map<string, Float32Array>();
    for (const [name, variable] of this.#variables())
      tensors.set(name, (variable.dataSync() as Float32Array).slice());
    return { tensors, step: this.#step };
  }

  async restore(tensors: ReadonlyMap<string, Float32Array>, step: number): Promise<void> {
    const variables = this.#variables();
    for (const [name, variable] of variables) {
      const saved = tensors.get(name);
      if (saved?.length !== variable.size)
        throw new StateError(
          `The saved state has ${saved ? `${saved.length} values` : 'nothing'} for ${name}, which has ${variable.size}. It belongs to another preset, code count or version of the model.`,
        );
    }
    for (const [name, variable] of variables)
      this.#tf.tidy(() => variable.assign(this.#tf.tensor(tensors.get(name)!.slice(), variable.shape)));
    this.#step = step;
  }

  async close(): Promise<void> {
    this.#tf.dispose(this.#variables().map(([, variable]) => variable));
  }

  /** Names every parameter: the first pass runs once without gradients. */
  prepare(feeds: (name: string, shape: readonly number[], dtype: 'int32' | 'float32') => tfjs.Tensor): void {
    this.#tf.tidy(() => {
      this.#start.pass(this.#ops(feeds, new Map()));
    });
  }

  /** Tensors that are returned belong to the caller. */
  #differentiate(
    name: string,
    feeds: Arrays,
  ): {
    metrics: Record<string, tfjs.Tensor>;
    gradients: Map<string, tfjs.Tensor>;
    assigned: Map<string, tfjs.Tensor>;
  } {
    const tf = this.#tf;
    const pass = this.#passes.get(name)!;
    const assigned = new Map<string, tfjs.Tensor>();
    let metrics: Record<string, tfjs.Tensor> = {};
    const weights = [...this.#parameters.values()].map((p) => p.weight);
    const { value, grads } = tf.variableGrads(() => {
      const { loss, metrics: found } = pass(this.#ops(feeds, assigned));
      metrics = Object.fromEntries(Object.entries(found).map(([key, x]) => [key, tf.keep(tf.clone(x))]));
      for (const [buffer, x] of assigned) assigned.set(buffer, tf.keep(tf.clone(x)));
      return tf.reshape(loss, []) as tfjs.Scalar;
    }, weights);
    value.dispose();
    const gradients = new Map<string, tfjs.Tensor>();
    for (const [parameter, { weight }] of this.#parameters) {
      const gradient = grads[weight.name];
      if (gradient) gradients.set(parameter, gradient);
    }
    return { metrics, gradients, assigned };
  }

  #ops(
    feeds: Arrays | ((name: string, shape: readonly number[], dtype: 'int32' | 'float32') => tfjs.Tensor),
    assigned: Map<string, tfjs.Tensor>,
  ): TensorflowOps {
    const tf = this.#tf;
    const inputs = new Map<string, tfjs.Tensor>();
    return new TensorflowOps(tf, {
      parameter: (name, shape, init, { decay = true }) => {
        let known = this.#parameters.get(name);
        if (!known) {
          const zeros = (): tfjs.Variable => tf.variable(tf.zeros([...shape]), false);
          const values = initialWeights(this.#start.seed, name, shape, init);
          known = {
            weight: tf.variable(tf.tensor(values, [...shape]), true),
            moment1: zeros(),
            moment2: zeros(),
            decay,
            rate: this.#start.rate(name),
          };
          this.#parameters.set(name, known);
        }
        return known.weight;
      },
      buffer: (name, shape, init) => {
        let known = this.#buffers.get(name);
        if (!known) {
          known = tf.variable(
            tf.tensor(initialWeights(this.#start.seed, name, shape, init), [...shape]),
            false,
          );
          this.#buffers.set(name, known);
        }
        return known;
      },
      assign: (name, value) => {
        assigned.set(name, value);
      },
      input: (name, shape, dtype) => {
        let tensor = inputs.get(name);
        if (!tensor) {
          if (typeof feeds === 'function') tensor = feeds(name, shape, dtype);
          else {
            const data = feeds[name];
            const size = shape.reduce((a, b) => a * b, 1);
            if (data?.length !== size)
              throw new Error(
                `Input ${name} has shape [${shape}], got ${data ? `${data.length} values` : 'nothing'}`,
              );
            tensor = tf.tensor(data, [...shape], dtype);
          }
          inputs.set(name, tensor);
        }
        return tensor;
      },
    });
  }

  #update(
    { weight, moment1, moment2, decay, rate }: Parameter,
    gradient: tfjs.Tensor | undefined,
    step: { t: number; learningRate: number; gradNorm: number },
  ): void {
    const tf = this.#tf;
    const f = adamwFactors(this.#start.adamw, step, { decay, rate });
    tf.tidy(() => {
      const g = gradient ?? tf.zerosLike(weight);
      const next1 = tf.add(tf.mul(moment1, f.beta1), tf.mul(g, f.gain1));
      const next2 = tf.add(tf.mul(moment2, f.beta2), tf.mul(tf.mul(g, g), f.gain2));
      const direction = tf.div(tf.mul(next1, f.stepSize), tf.add(tf.sqrt(next2), f.smallest));
      weight.assign(tf.sub(tf.mul(weight, f.shrink), direction));
      moment1.assign(next1);
      moment2.assign(next2);
    });
  }

  #variables(): [string, tfjs.Variable][] {
    return [
      ...[...this.#parameters].flatMap(([name, p]): [string, tfjs.Variable][] => [
        [name, p.weight],
        [`m.${name}`, p.moment1],
        [`v.${name}`, p.moment2],
      ]),
      ...this.#buffers,
    ];
  }
}

const diverged = (step: number, what: string): DivergedError =>
  new DivergedError(
    `Step ${step}: ${what}; the weights stay as they were. Lower the learning rate or restore a checkpoint.`,
  );

/** Starts an engine on the backend that `tf` has chosen. */
export function startTensorflow(tf: Tensorflow, start: EngineStart): TensorflowEngine {
  const engine = new TensorflowEngine(tf, start);
  engine.prepare((_, shape, dtype) => tf.zeros([...shape], dtype));
  return engine;
}
