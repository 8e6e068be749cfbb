import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EngineStart } from '../src/engine/training-engine.ts';
import { retrievalPass } from '../src/models/onemall.ts';
import { loadTfjs } from '../src/tensorflow/load-tensorflow.ts';
import { startTensorflow } from '../src/tensorflow/tensorflow-engine.ts';
import { DivergedError } from '../src/trainer-ports.ts';
import { describeAsOnnxruntime, feedsOf, relative, sizes, startOf, withEngines } from './tensorflow-cases.ts';

for (const backend of ['wasm', 'cpu'] as const) describeAsOnnxruntime(backend, () => loadTfjs(backend));

test('a state of onnxruntime goes on in TensorFlow.js, and a step that diverges leaves the weights as they were', async () => {
  const tf = await loadTfjs('cpu');
  const pass: EngineStart['pass'] = (ops) => retrievalPass(ops, sizes);
  await withEngines(tf, startOf(pass), async (onnx, tensorflow) => {
    for (let i = 0; i < 2; i++) await onnx.step('train', feedsOf(i), 1e-2);
    const { tensors, step } = await onnx.state();
    await tensorflow.restore(tensors, step);
    const [a, b] = [
      await onnx.step('train', feedsOf(2), 1e-2),
      await tensorflow.step('train', feedsOf(2), 1e-2),
    ];
    assert.ok(relative(a.metrics.loss!, b.metrics.loss!, 1) < 1e-5);

    const before = await tensorflow.state();
    const feeds = feedsOf(0);
    (feeds['sample.logQ'] as Float32Array)[0] = Number.NaN;
    await assert.rejects(tensorflow.step('train', feeds, 1e-2), DivergedError);
    const after = await tensorflow.state();
    assert.equal(after.step, before.step);
    for (const [name, data] of before.tensors) assert.deepEqual(after.tensors.get(name), data, name);
  });
});

test('steps leave no tensors behind', async () => {
  const tf = await loadTfjs('cpu');
  const engine = startTensorflow(
    tf,
    startOf((ops) => retrievalPass(ops, sizes)),
  );
  await engine.step('train', feedsOf(0), 1e-3);
  const { numTensors } = tf.memory();
  await engine.step('train', feedsOf(1), 1e-3);
  await engine.gradients('train', feedsOf(2));
  assert.equal(tf.memory().numTensors, numTensors);
  await engine.close();
});
