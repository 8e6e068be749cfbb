import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { contrastiveLoss, dpoLoss, grpoLoss, unitLength } from '../src/layers/losses.ts';
import type { Ops } from '../src/ops.ts';
import { evaluateBoth } from './gradients.ts';
import { randomSource } from './synthetic.ts';

const random = randomSource(21);
const floats = (n: number, low: number, high: number) =>
  Float32Array.from({ length: n }, () => low + (high - low) * random.next());

describe('GRPO', () => {
  const R = 40;
  const logProbs = floats(R, -14, -6);
  const refLogProbs = logProbs.map((p, i) =>
    i === 0 ? p - 25 : i === 1 ? p + 25 : p + 0.6 * (random.next() - 0.5),
  );
  const advantages = floats(R, -2, 2);
  const weights = floats(R, 0, 0.1);

  test('is the clipped surrogate, with log rho clamped to 10', async () => {
    const build = <T>(o: Ops<T>): Record<string, T> => {
      const input = (name: string) => o.input(name, [R], 'float32');
      return {
        loss: grpoLoss(
          o,
          {
            logProbs: input('logProbs'),
            refLogProbs: input('ref'),
            advantages: input('adv'),
            weights: input('weights'),
          },
          { epsilon: 0.2, epsilonHigh: 0.28 },
        ),
      };
    };
    const { loss } = await evaluateBoth(build, { logProbs, ref: refLogProbs, adv: advantages, weights });
    let expected = 0;
    for (let i = 0; i < R; i++) {
      const logRho = Math.min(10, Math.max(-10, logProbs[i]! - refLogProbs[i]!));
      const rho = Math.exp(logRho);
      const clipped = Math.max(0.8, Math.min(rho, 1.28));
      expected -= weights[i]! * Math.min(rho * advantages[i]!, clipped * advantages[i]!);
    }
    assert.ok(
      Math.abs(loss!.onnx[0]! - expected) < 1e-4 * Math.abs(expected),
      `${loss!.onnx[0]} ${expected}`,
    );
  });
});

describe('DPO', () => {
  test('is -log sigmoid of the margin between candidate 0 and each other one', async () => {
    const [G, m, lambda] = [3, 5, 0.3];
    const logProbs = floats(G * m, -14, -6);
    const ref = floats(G * m, -14, -6);
    const weights = floats(G * m, 0, 1);
    const build = <T>(o: Ops<T>): Record<string, T> => {
      const input = (name: string) => o.input(name, [G * m], 'float32');
      const inputs = { logProbs: input('logProbs'), refLogProbs: input('ref'), weights: input('weights') };
      return { loss: dpoLoss(o, inputs, { groups: G, perGroup: m, lambda }) };
    };
    const { loss } = await evaluateBoth(build, { logProbs, ref, weights });
    let expected = 0;
    for (let g = 0; g < G; g++)
      for (let i = 1; i < m; i++) {
        const ratio = (k: number) => logProbs[g * m + k]! - ref[g * m + k]!;
        const sigma = 1 / (1 + Math.exp(-lambda * (ratio(0) - ratio(i))));
        expected -= weights[g * m + i]! * Math.log(sigma);
      }
    assert.ok(Math.abs(loss!.onnx[0]! - expected) < 1e-5 * expected, `${loss!.onnx[0]} ${expected}`);
  });
});

describe('contrast', () => {
  const [B, D, temperature] = [6, 4, 0.2];
  const users = floats(B * D, -1, 1);
  const items = floats(B * D, -1, 1);
  // rows 1 and 3 hold one item, row 5 is padding
  const itemKeys = Int32Array.of(10, 11, 12, 11, 13, 0);
  const weights = Float32Array.of(0.2, 0.2, 0.3, 0.1, 0.2, 0);
  const logQ = floats(B, -6, -1);
  const build = <T>(o: Ops<T>): Record<string, T> =>
    contrastiveLoss(
      o,
      {
        users: unitLength(o, o.input('users', [B, D], 'float32')),
        items: unitLength(o, o.input('items', [B, D], 'float32')),
        itemKeys: o.input('keys', [B], 'int32'),
        logQ: o.input('logQ', [B], 'float32'),
        weights: o.input('weights', [B], 'float32'),
      },
      temperature,
    );
  const unit = (all: Float32Array, row: number): number[] => {
    const v = Array.from(all.subarray(row * D, (row + 1) * D));
    const length = Math.hypot(...v);
    return v.map((c) => c / length);
  };

  test('is InfoNCE over the other items, with log-q correction, without padding and copies of the positive', async () => {
    const { loss, hits } = await evaluateBoth(build, { users, items, keys: itemKeys, logQ, weights });
    let expected = 0;
    const best: number[] = [];
    for (let i = 0; i < 5; i++) {
      const logit = (j: number) =>
        unit(users, i).reduce((s, c, d) => s + c * unit(items, j)[d]!, 0) / temperature - logQ[j]!;
      const columns = [0, 1, 2, 3, 4].filter((j) => j === i || itemKeys[j] !== itemKeys[i]);
      const total = columns.reduce((s, j) => s + Math.exp(logit(j)), 0);
      expected -= weights[i]! * (logit(i) - Math.log(total));
      best.push(columns.every((j) => logit(j) <= logit(i)) ? 1 : 0);
    }
    assert.ok(Math.abs(loss!.onnx[0]! - expected) < 1e-5 * expected, `${loss!.onnx[0]} ${expected}`);
    assert.deepEqual(hits!.onnx.slice(0, 5), best);
  });

  test('a copy of the positive and padding do not count at all', async () => {
    const changed = items.slice();
    changed.fill(0.9, 5 * D);
    const withPadding = await evaluateBoth(build, { users, items: changed, keys: itemKeys, logQ, weights });
    const before = await evaluateBoth(build, { users, items, keys: itemKeys, logQ, weights });
    assert.equal(withPadding.loss!.onnx[0], before.loss!.onnx[0]);
  });
});
