/**
 * What it takes to add an engine: something that fills `Ops` and `TrainingEngine`. This one computes on float64 arrays and takes its
 * gradients by central differences. It knows no model, and no model knows it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEngine, starters } from '../src/engine/choose-engine.ts';
import type {
  Arrays,
  EngineStart,
  ForwardBuilder,
  PassBuilder,
  StepOutcome,
  TrainingEngine,
} from '../src/engine/training-engine.ts';
import { initialWeights } from '../src/initial-weights.ts';
import { rankerPass, rankerScores } from '../src/models/ranker.ts';
import type { Initializer, Shape } from '../src/ops.ts';
import { rankerFeeds } from '../src/ranker-trainer.ts';
import { DivergedError } from '../src/trainer-ports.ts';
import { SCENARIOS as RANKER_SCENARIOS, randomRankerSamples } from './ranker-samples.ts';
import { type Array64, ReferenceOps } from './reference-ops.ts';
import { randomSource } from './synthetic.ts';

const DIFFERENCE = 1e-4;

class ArrayEngine implements TrainingEngine {
  readonly description = 'float64 arrays and finite differences';
  readonly onDevice = false;
  readonly #start: EngineStart;
  readonly #passes = new Map<string, PassBuilder>();
  readonly #forwards = new Map<string, ForwardBuilder>();
  readonly #parameters = new Set<string>();
  readonly #values = new Map<string, Float64Array>();
  #steps = 0;

  constructor(start: EngineStart) {
    this.#start = start;
    this.#passes.set(start.name, start.pass);
  }
  async addPass(name: string, pass: PassBuilder): Promise<void> {
    this.#passes.set(name, pass);
  }
  async addForward(name: string, build: ForwardBuilder): Promise<void> {
    this.#forwards.set(name, build);
  }

  async step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome> {
    const { ops, metrics } = this.#run(name, feeds);
    const gradients = await this.gradients(name, feeds);
    const gradNorm = Math.hypot(...Object.values(gradients).map((g) => Math.hypot(...g)));
    const figures = Object.fromEntries(
      Object.entries(metrics).map(([metric, { data }]) => [metric, Float32Array.from(data)]),
    );
    if (![gradNorm, ...Object.values(figures).flatMap((f) => [...f])].every(Number.isFinite))
      throw new DivergedError(`A figure of ${name} is not finite`);
    this.#steps++;
    for (const [parameter, gradient] of Object.entries(gradients))
      this.#descend(parameter, gradient, gradNorm, learningRate);
    for (const [buffer, { data }] of ops.assigned) this.#values.set(buffer, data);
    return { metrics: figures, gradNorm, stepMs: 0 };
  }

  /** AdamW as its paper has it. */
  #descend(parameter: string, gradient: Float32Array, gradNorm: number, learningRate: number): void {
    const { adamw, rate } = this.#start;
    const [m, v] = ['m', 'v'].map((moment) => this.#moment(moment, parameter, gradient.length)) as [
      Float64Array,
      Float64Array,
    ];
    const w = this.#values.get(parameter)!;
    for (let i = 0; i < w.length; i++) {
      const g = gradient[i]! * Math.min(1, adamw.maxGradNorm / gradNorm);
      m[i] = adamw.beta1 * m[i]! + (1 - adamw.beta1) * g;
      v[i] = adamw.beta2 * v[i]! + (1 - adamw.beta2) * g * g;
      const mean = m[i]! / (1 - adamw.beta1 ** this.#steps);
      const square = v[i]! / (1 - adamw.beta2 ** this.#steps);
      w[i]! -= (learningRate * rate(parameter) * mean) / (Math.sqrt(square) + adamw.epsilon);
    }
  }
  #moment(moment: string, parameter: string, size: number): Float64Array {
    const name = `${moment}.${parameter}`;
    const known = this.#values.get(name) ?? new Float64Array(size);
    this.#values.set(name, known);
    return known;
  }

  async gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>> {
    const loss = (): number => this.#run(name, feeds).loss.data[0]!;
    loss(); // the first run makes the parameters
    const of = (w: Float64Array): Float32Array =>
      Float32Array.from(w, (at, i) => {
        w[i] = at + DIFFERENCE;
        const up = loss();
        w[i] = at - DIFFERENCE;
        const down = loss();
        w[i] = at;
        return (up - down) / (2 * DIFFERENCE);
      });
    return Object.fromEntries([...this.#parameters].map((p) => [p, of(this.#values.get(p)!)]));
  }

  async forward(name: string, feeds: Arrays): Promise<Arrays> {
    const made = this.#forwards.get(name)!(this.#ops(feeds));
    return Object.fromEntries(Object.entries(made).map(([key, { data }]) => [key, Float32Array.from(data)]));
  }

  #run(name: string, feeds: Arrays) {
    const ops = this.#ops(feeds);
    return { ops, ...this.#passes.get(name)!(ops) };
  }
  #ops(feeds: Arrays): ReferenceOps {
    const { seed } = this.#start;
    const [values, parameters] = [this.#values, this.#parameters];
    return new (class extends ReferenceOps {
      override parameter(name: string, shape: Shape, init: Initializer): Array64 {
        parameters.add(name);
        if (!values.has(name)) values.set(name, Float64Array.from(initialWeights(seed, name, shape, init)));
        return super.parameter(name, shape, init);
      }
    })(values, feeds);
  }

  async state(): Promise<{ tensors: Map<string, Float32Array>; step: number }> {
    const tensors = new Map([...this.#values].map(([name, data]) => [name, Float32Array.from(data)]));
    return { tensors, step: this.#steps };
  }
  async restore(tensors: ReadonlyMap<string, Float32Array>, step: number): Promise<void> {
    for (const [name, data] of tensors) this.#values.set(name, Float64Array.from(data));
    this.#steps = step;
  }
  async close(): Promise<void> {}
}

test('an engine that no model knows trains a model like the one that is built in', async () => {
  const preset = { name: 'micro', idDim: 2, idRows: 6, hidden: [3], batchSize: 5, learningRate: 1 };
  const start: EngineStart = {
    name: 'train',
    pass: (ops) => rankerPass(ops, preset, 5),
    seed: 8,
    numThreads: 1,
    // a large epsilon: below it a difference is noise, whose sign Adam would follow
    adamw: { beta1: 0.9, beta2: 0.999, epsilon: 1e-3, weightDecay: 0, maxGradNorm: 1 },
    rate: (name) => (name === 'id' ? 0.5 : 1),
  };
  const engines = [
    await chooseEngine(start, 'cpu'),
    await chooseEngine(start, 'webgpu', { ...starters, webgpu: async (s) => new ArrayEngine(s) }),
  ].map(({ engine }) => engine);
  const [cpu, arrays] = engines as [TrainingEngine, TrainingEngine];
  assert.match(arrays.description, /float64 arrays/);
  for (const engine of engines) await engine.addForward('scores', (ops) => rankerScores(ops, preset, 5));

  const random = randomSource(6);
  const near = (actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void => {
    assert.equal(actual.length, expected.length, what);
    for (let i = 0; i < actual.length; i++) {
      const tolerance = 1e-3 * Math.max(1, Math.abs(expected[i]!));
      assert.ok(
        Math.abs(actual[i]! - expected[i]!) <= tolerance,
        `${what} ${i}: ${actual[i]}, ${expected[i]}`,
      );
    }
  };
  const feeds = () => rankerFeeds(randomRankerSamples(random, 5), 5, RANKER_SCENARIOS);
  for (let step = 0; step < 4; step++) {
    const batch = feeds();
    const here = await arrays.step('train', structuredClone(batch), 0.05);
    const there = await cpu.step('train', batch, 0.05);
    assert.deepEqual(Object.keys(here.metrics), Object.keys(there.metrics));
    for (const [metric, values] of Object.entries(there.metrics)) near(here.metrics[metric]!, values, metric);
    near([here.gradNorm], [there.gradNorm], 'gradient norm');
  }
  const expected = await cpu.state();
  const actual = await arrays.state();
  assert.equal(actual.step, expected.step);
  assert.deepEqual([...actual.tensors.keys()].sort(), [...expected.tensors.keys()].sort());
  for (const [name, values] of expected.tensors) near(actual.tensors.get(name)!, values, name);

  // What one of them has learnt the other goes on with.
  await cpu.restore(actual.tensors, actual.step);
  const asked = feeds();
  const [theirs, ours] = [
    await cpu.forward('scores', structuredClone(asked)),
    await arrays.forward('scores', asked),
  ];
  for (const [name, values] of Object.entries(theirs)) near(ours[name]!, values, name);
  await cpu.close();
});
