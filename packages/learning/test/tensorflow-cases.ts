/** What TensorFlow.js must compute as onnxruntime does, whichever backend it has. */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { startOnnxruntime } from '../src/engine/onnxruntime.ts';
import { OrtSessions } from '../src/engine/ort-sessions.ts';
import { compileGradient, compileOptimizer } from '../src/engine/program.ts';
import type { Arrays, EngineStart, TrainingEngine } from '../src/engine/training-engine.ts';
import { retrievalPass } from '../src/models/onemall.ts';
import { retrievalFeeds } from '../src/models/onemall-feeds.ts';
import { retrievalPresets } from '../src/models/presets.ts';
import { startTensorflow } from '../src/tensorflow/tensorflow-engine.ts';
import type { Tensorflow } from '../src/tensorflow/tensorflow-ops.ts';
import { differentiable, exact } from './op-cases.ts';
import { LAYOUT, randomGroup, randomSamples, randomSource } from './synthetic.ts';

const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, maxGradNorm: 1 };
export const startOf = (pass: EngineStart['pass']): EngineStart => ({
  name: 'train',
  pass,
  seed: 11,
  numThreads: 1,
  adamw,
  rate: () => 1,
});

const preset = { ...retrievalPresets.tiny, historyLength: 5 };
const rl = { form: 'grpo' as const, groups: 2, perGroup: 4, epsilon: 0.2, epsilonHigh: 0.28, dpoLambda: 0.3 };
export const sizes = { preset, layout: LAYOUT, batchSize: 8, historyLength: 5, rl };
const random = randomSource(17);
const batches = Array.from({ length: 3 }, () => ({
  samples: randomSamples(random, 7, 5),
  groups: [randomGroup(random, 5, 4)],
}));
export const feedsOf = (i: number): Arrays =>
  retrievalFeeds(batches[i]!.samples, batches[i]!.groups, sizes, {
    logQ: new Float32Array(7).fill(-2),
    rlScale: 0.5,
    rlNormalizer: 1,
  });

export async function withEngines(
  tf: Tensorflow,
  start: EngineStart,
  use: (onnx: TrainingEngine, tensorflow: TrainingEngine) => Promise<void>,
): Promise<void> {
  const [onnx, tensorflow] = [await startOnnxruntime(start), startTensorflow(tf, start)];
  try {
    await use(onnx, tensorflow);
  } finally {
    await onnx.close();
    await tensorflow.close();
  }
}

/** Greatest difference of a and b, over the greatest value of a (at least `floor`). */
export function relative(a: ArrayLike<number>, b: ArrayLike<number>, floor: number): number {
  assert.equal(a.length, b.length);
  let [most, scale] = [0, floor];
  for (let i = 0; i < a.length; i++) {
    most = Math.max(most, Math.abs(a[i]! - b[i]!));
    scale = Math.max(scale, Math.abs(a[i]!));
  }
  return most / scale;
}

export function describeAsOnnxruntime(backend: string, load: () => Promise<Tensorflow>): void {
  describe(`TensorFlow.js on its backend ${backend} is onnxruntime`, () => {
    let tf: Tensorflow;
    before(async () => {
      tf = await load();
    });

    test('in the gradients of every operation', async () => {
      for (const [name, { model }] of Object.entries(differentiable)) {
        const start = startOf((ops) => ({ loss: model(ops), metrics: {} }));
        const { gradient, graph } = compileGradient((ops) => start.pass(ops));
        const onnx = new OrtSessions(compileOptimizer(graph, adamw, start.rate), start.seed, 1);
        await onnx.addGradient('train', gradient);
        const tensorflow = startTensorflow(tf, start);
        const { tensors } = onnx.state();
        const source = randomSource(3);
        // Positive weights suit every case: some take roots.
        for (const key of graph.parameters.keys())
          tensors.get(key)!.forEach((_, i, data) => {
            data[i] = 0.3 + source.next();
          });
        onnx.restore(tensors, 0);
        await tensorflow.restore(tensors, 0);
        const expected = await onnx.gradients('train', {});
        const actual = await tensorflow.gradients('train', {});
        assert.deepEqual(Object.keys(actual).sort(), Object.keys(expected).sort(), name);
        for (const [key, values] of Object.entries(expected))
          assert.ok(
            relative(values, actual[key]!, 1e-3) < 1e-5,
            `${name}, ${key}: ${values}, ${actual[key]}`,
          );
        await onnx.close();
        await tensorflow.close();
      }
    });

    test('in the values of operations without gradients', async () => {
      const start = startOf((ops) => ({
        loss: ops.sum(ops.parameter('w', [1], { kind: 'ones' }), [0]),
        metrics: {},
      }));
      await withEngines(tf, start, async (onnx, tensorflow) => {
        const { x, ids, build } = exact;
        for (const engine of [onnx, tensorflow]) await engine.addForward('exact', build);
        const expected = await onnx.forward('exact', { x: x.slice(), ids: ids.slice() });
        const actual = await tensorflow.forward('exact', { x: x.slice(), ids: ids.slice() });
        for (const [key, values] of Object.entries(expected))
          assert.deepEqual(
            Array.from(actual[key]!, (v) => v + 0),
            Array.from(values, (v) => v + 0),
            key,
          );
      });
    });

    test('in losses, gradients and updates of the whole model with reward groups', async () => {
      await withEngines(
        tf,
        startOf((ops) => retrievalPass(ops, sizes)),
        async (onnx, tensorflow) => {
          const expected = await onnx.gradients('train', feedsOf(0));
          const actual = await tensorflow.gradients('train', feedsOf(0));
          assert.deepEqual(Object.keys(actual).sort(), Object.keys(expected).sort());
          for (const [name, values] of Object.entries(expected))
            assert.ok(
              relative(values, actual[name]!, 1e-3) < 1e-4,
              `${name}: ${relative(values, actual[name]!, 1e-3)}`,
            );
          for (let i = 0; i < 6; i++) {
            const a = await onnx.step('train', feedsOf(i % 3), 1e-3);
            const b = await tensorflow.step('train', feedsOf(i % 3), 1e-3);
            assert.deepEqual(Object.keys(b.metrics), Object.keys(a.metrics));
            for (const metric of ['loss', 'ntp1', 'contrastive', 'rl', 'logProb3', 'loads0'])
              assert.ok(
                relative(a.metrics[metric]!, b.metrics[metric]!, 1) < 1e-3,
                `step ${i}, ${metric}: ${a.metrics[metric]}, ${b.metrics[metric]}`,
              );
            assert.ok(Math.abs(a.gradNorm / b.gradNorm - 1) < 1e-3);
          }
          const [first, second] = [(await onnx.state()).tensors, (await tensorflow.state()).tensors];
          assert.deepEqual([...second.keys()].sort(), [...first.keys()].sort());
        },
      );
    });
  });
}
