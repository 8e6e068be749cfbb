import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { OrtSessions } from '../src/engine/ort-sessions.ts';
import { compileGradient, compileOptimizer } from '../src/engine/program.ts';
import { type ExpertSizes, mixtureOfExperts } from '../src/layers/mixture-of-experts.ts';
import type { Ops } from '../src/ops.ts';
import { checkGradients } from './gradients.ts';
import { randomSource } from './synthetic.ts';

const N = 12;
const D = 6;
const sizes: ExpertSizes = { experts: 4, active: 2, ffnDim: 8, slots: 4, balanceRate: 0.01, precedence: 0 };
const random = randomSource(9);
const x = Float32Array.from({ length: N * D }, () => 2 * random.next() - 1);
const present = new Float32Array(N).fill(1);
present[5] = 0;

function layer<T>(ops: Ops<T>, options: ExpertSizes) {
  const tokens = ops.input('x', [N, D], 'float32');
  const result = mixtureOfExperts(ops, 'moe', tokens, ops.input('present', [N, 1], 'float32'), options);
  const loss = ops.sum(ops.mul(result.y, result.y), [0, 1]);
  return { loss, ...result };
}

async function run(options: ExpertSizes, steps = 1, feeds = { x, present }) {
  const { gradient, graph } = compileGradient((ops) => {
    const { loss, y, loads, overflow } = layer(ops, options);
    return { loss, metrics: { loss, y, loads: loads!, overflow: overflow! } };
  });
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 };
  const sessions = new OrtSessions(
    compileOptimizer(graph, adamw, () => 1),
    2,
    1,
  );
  await sessions.addGradient('moe', gradient);
  const history: { y: number[]; loads: number[]; overflow: number; bias: number[] }[] = [];
  for (let i = 0; i < steps; i++) {
    // a learning rate of 0 leaves everything but the balancing bias in place
    const { metrics } = await sessions.step('moe', { ...feeds }, 0);
    const bias = Array.from(sessions.state().tensors.get('moe.bias')!);
    history.push({
      y: Array.from(metrics.y!),
      loads: Array.from(metrics.loads!),
      overflow: metrics.overflow![0]!,
      bias,
    });
  }
  await sessions.close();
  return history;
}

describe('mixture of experts', () => {
  test('gradients agree with finite differences, with dropped pairs, padding and precedence', async () => {
    for (const options of [sizes, { ...sizes, slots: N }, { ...sizes, slots: 3, precedence: 3 }])
      await checkGradients((ops) => layer(ops, options).loss, { feeds: { x, present }, perParameter: 10 });
  });

  test('slots give what computing every expert for every token gives, where nothing is dropped', async () => {
    const [sparse] = await run({ ...sizes, slots: N - 1 });
    const [dense] = await run({ ...sizes, slots: N });
    assert.equal(sparse!.overflow, 0);
    sparse!.y.forEach((v, i) => {
      assert.ok(Math.abs(v - dense!.y[i]!) < 1e-5);
    });
    assert.deepEqual(sparse!.loads, dense!.loads);
  });

  test('padding is neither computed nor counted', async () => {
    const [result] = await run(sizes);
    assert.equal(
      result!.loads.reduce((a, b) => a + b, 0),
      (N - 1) * 2,
    );
    assert.deepEqual(result!.y.slice(5 * D, 6 * D), new Array(D).fill(0));
  });

  test('pairs beyond the slots are counted and give nothing', async () => {
    const [result] = await run({ ...sizes, slots: 2 });
    const expected = result!.loads.reduce((sum, load) => sum + Math.max(0, load - 2), 0);
    assert.ok(expected > 0);
    assert.equal(result!.overflow, expected);
  });

  test('tokens with precedence are computed before all others', async () => {
    const [free] = await run({ ...sizes, slots: N });
    const [tight] = await run({ ...sizes, slots: 4, precedence: 4 });
    assert.ok(tight!.overflow > 0, 'others are dropped');
    for (let i = 0; i < 4 * D; i++) assert.ok(Math.abs(tight!.y[i]! - free!.y[i]!) < 1e-5);
  });

  test('the bias moves by u towards equal loads and in the end changes the choice', async () => {
    // tokens that look alike all choose the same two experts at first
    const alike = x.map((v, i) => Math.sin(i % D) + 0.3 * v);
    const history = await run({ ...sizes, slots: N, balanceRate: 0.02 }, 60, { x: alike, present });
    const first = history[0]!;
    const mean = ((N - 1) * 2) / sizes.experts;
    first.bias.forEach((b, e) => {
      assert.ok(Math.abs(b - 0.02 * Math.sign(mean - first.loads[e]!)) < 1e-7);
    });
    assert.deepEqual(first.loads.toSorted(), [0, 0, N - 1, N - 1], 'begins unbalanced');
    // around equal loads the bias swings, so the sum over steps is what evens out
    const late = history
      .slice(-20)
      .reduce((sum, { loads }) => sum.map((s, e) => s + loads[e]!), [0, 0, 0, 0]);
    const share = Math.max(...late) / late.reduce((a, b) => a + b, 0);
    assert.ok(share < 0.35, `greatest share ${share} of ${late}`);
  });

  test('one expert is a plain feed-forward network', async () => {
    const checked = await checkGradients((ops) => layer(ops, { ...sizes, experts: 1, active: 1 }).loss, {
      feeds: { x, present },
    });
    assert.ok(checked > 0);
  });
});
