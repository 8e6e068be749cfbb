import assert from 'node:assert/strict';
import { test } from 'node:test';
import { automatic, chooseEngine, type Starter, starters } from '../src/engine/choose-engine.ts';
import type { EngineStart } from '../src/engine/training-engine.ts';
import { normal } from '../src/ops.ts';
import { type EngineName, engineNames } from '../src/trainer-ports.ts';

const start: EngineStart = {
  name: 'train',
  pass: (ops) => {
    const w = ops.parameter('w', [2, 2], normal(1));
    const loss = ops.sum(ops.mul(w, w), [0, 1]);
    return { loss, metrics: { loss } };
  },
  seed: 5,
  numThreads: 1,
  adamw: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  rate: () => 1,
};
const missing: Starter = async () => {
  throw new Error('no such device');
};
const only = (...working: EngineName[]): Record<EngineName, Starter> =>
  Object.fromEntries(
    engineNames.map((name) => [name, working.includes(name) ? starters.cpu : missing]),
  ) as Record<EngineName, Starter>;

test('the first engine that works is taken, with the reasons against those before it', async () => {
  for (const [working, expected, passed] of [
    [only('tensorflow', 'cuda', 'cpu'), 'tensorflow', []],
    [only('webgpu', 'cpu', 'wasm'), 'webgpu', ['tensorflow', 'cuda']],
    [only('cpu', 'wasm'), 'cpu', ['tensorflow', 'cuda', 'webgpu']],
  ] as const) {
    const { name, engine, passedOver } = await chooseEngine(start, undefined, working);
    await engine.close();
    assert.equal(name, expected);
    assert.deepEqual(
      passedOver,
      passed.map((other) => ({ name: other, reason: 'no such device' })),
    );
  }
});

test('an engine that starts without a device is not taken before the CPU', async (t) => {
  const cpu = await starters.cpu(start);
  const close = t.mock.method(cpu, 'close');
  t.mock.method(starters, 'webgpu', async () => cpu);
  await assert.rejects(automatic.webgpu(start), /no graphics device is there; name it/);
  assert.equal(close.mock.callCount(), 1);
});

test('a named engine is taken or refused, never replaced', async () => {
  await assert.rejects(chooseEngine(start, 'cuda', only('cpu')), /cuda: no such device/);
  const { name, engine } = await chooseEngine(start, 'wasm');
  assert.match(engine.description, /TensorFlow\.js .*backend wasm/);
  const { gradNorm } = await engine.step('train', {}, 0.1);
  assert.ok(gradNorm > 0);
  await engine.close();
  assert.equal(name, 'wasm');
});

test('where nothing works every reason is given', async () => {
  await assert.rejects(chooseEngine(start, undefined, only()), (error: Error) =>
    engineNames.every((name) => error.message.includes(`${name}: no such device`)),
  );
});
