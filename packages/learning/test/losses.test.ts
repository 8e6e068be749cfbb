import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { OrtSessions } from '../src/engine/ort-sessions.ts';
import { compileGradient, compileOptimizer } from '../src/engine/program.ts';
import { contrastiveLoss, dpoLoss, grpoLoss, unitLength } from '../src/layers/losses.ts';
import type { Ops } from '../src/ops.ts';
import { evaluateBoth } from './gradients.ts';
import { randomSource } from './synthetic.ts';

const random = randomSource(21);
const floats = (n: number, low: number, high: number) =>
  Float32Array.from({ length: n }, () => low + (high - low) * random.next());

/** Loss and its gradient by the log-probabilities, as the training graph computes them. */
async function lossAndGradient(
  build: <T>(ops: Ops<T>, logProbs: T) => T,
  logProbs: Float32Array,
  feeds: Record<string, Float32Array>,
): Promise<{ loss: number; gradient: Float32Array }> {
  const { gradient, graph } = compileGradient((ops) => {
    const loss = build(ops, ops.parameter('logProbs', [logProbs.length], { kind: 'zeros' }));
    return { loss, metrics: { loss } };
  });
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 };
  const sessions = new OrtSessions(
    compileOptimizer(graph, adamw, () => 1),
    1,
    1,
  );
  await sessions.addGradient('loss', gradient);
  const { tensors } = sessions.state();
  tensors.get('logProbs')!.set(logProbs);
  sessions.restore(tensors, 0);
  const found = await sessions.gradients('loss', feeds);
  const { metrics } = await sessions.step('loss', feeds, 0);
  await sessions.close();
  return { loss: metrics.loss![0]!, gradient: found.logProbs! };
}

const closeTo = (found: number, expected: number, what: string): void =>
  assert.ok(
    Math.abs(found - expected) <= 1e-5 + 1e-4 * Math.abs(expected),
    `${what}: ${found}, expected ${expected}`,
  );

describe('gradients of the RL losses by their formulas', () => {
  test('GRPO: -w A rho inside the clip, 0 where the clip or the clamp of log rho holds, asymmetric', async () => {
    const [epsilon, epsilonHigh] = [0.2, 0.28];
    // every side of both clips and of the clamp, for both signs of A, and A = 0
    const logRho = [0, 0.1, -0.1, 0.23, 0.26, -0.21, -0.24, 0.5, -0.5, 3, -3, 9.9, 10.5, -10.5, 25, -25];
    const rows = logRho.flatMap((l) => [1.5, -0.7, 0].map((advantage) => ({ l, advantage })));
    const R = rows.length;
    const ref = floats(R, -14, -6);
    const logProbs = Float32Array.from(rows, ({ l }, i) => ref[i]! + l);
    const adv = Float32Array.from(rows, (r) => r.advantage);
    const weights = floats(R, 0.01, 0.1);
    const { loss, gradient } = await lossAndGradient(
      (o, logProbs) => {
        const input = (name: string) => o.input(name, [R], 'float32');
        return grpoLoss(
          o,
          { logProbs, refLogProbs: input('ref'), advantages: input('adv'), weights: input('weights') },
          { epsilon, epsilonHigh },
        );
      },
      logProbs,
      { ref, adv, weights },
    );
    let expectedLoss = 0;
    for (let i = 0; i < R; i++) {
      const raw = logProbs[i]! - ref[i]!;
      const rho = Math.exp(Math.max(-10, Math.min(10, raw)));
      const [a, w] = [adv[i]!, weights[i]!];
      // Schulman et al. 2017, equation 7: the lesser of the two surrogates, each with its derivative by log pi
      const free = { value: rho * a, slope: Math.abs(raw) < 10 ? rho * a : 0 };
      const bounded = Math.max(1 - epsilon, Math.min(1 + epsilonHigh, rho));
      const clipped = { value: bounded * a, slope: bounded === rho ? free.slope : 0 };
      const taken = clipped.value < free.value ? clipped : free;
      expectedLoss -= w * taken.value;
      closeTo(gradient[i]!, -w * taken.slope, `row ${i}: log rho ${raw}, A ${a}`);
    }
    closeTo(loss, expectedLoss, 'loss');
    // the bounds are not the same on both sides
    const at = (l: number, a: number) => gradient[rows.findIndex((r) => r.l === l && r.advantage === a)]!;
    assert.ok(at(0.23, 1.5) !== 0 && at(0.26, 1.5) === 0 && at(-0.21, -0.7) !== 0 && at(-0.24, -0.7) === 0);
  });

  test('DPO: o+ is pulled and each o- pushed by w lambda sigma(-lambda margin)', async () => {
    const [G, m, lambda] = [4, 5, 0.3];
    const logProbs = floats(G * m, -30, -3);
    const ref = floats(G * m, -30, -3);
    const weights = floats(G * m, 0, 1);
    // a group that is padded up with rows of weight 0
    weights.fill(0, G * m - 2);
    const { loss, gradient } = await lossAndGradient(
      (o, logProbs) => {
        const input = (name: string) => o.input(name, [G * m], 'float32');
        const inputs = { logProbs, refLogProbs: input('ref'), weights: input('weights') };
        return dpoLoss(o, inputs, { groups: G, perGroup: m, lambda });
      },
      logProbs,
      { ref, weights },
    );
    let expectedLoss = 0;
    for (let g = 0; g < G; g++) {
      let pull = 0;
      for (let i = 1; i < m; i++) {
        const at = g * m + i;
        const margin = logProbs[g * m]! - ref[g * m]! - (logProbs[at]! - ref[at]!);
        const push = weights[at]! * lambda * (1 / (1 + Math.exp(lambda * margin)));
        expectedLoss += weights[at]! * Math.log1p(Math.exp(-lambda * margin));
        closeTo(gradient[at]!, push, `o- ${i} of group ${g}`);
        pull += push;
      }
      closeTo(gradient[g * m]!, -pull, `o+ of group ${g}`);
    }
    closeTo(loss, expectedLoss, 'loss');
  });
});

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
