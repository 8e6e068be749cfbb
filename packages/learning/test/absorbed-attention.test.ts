import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { absorbedWeights, absorbingPays, read, type SequenceNorm } from '../src/layers/absorbed-attention.ts';
import { attend, forbid, linear } from '../src/layers/attention.ts';
import { normal, type Ops, ones, zeros } from '../src/ops.ts';
import { checkGradients } from './gradients.ts';
import { type Array64, ReferenceOps } from './reference-ops.ts';
import { randomSource } from './synthetic.ts';

const [N, R, L, D, HEADS] = [2, 3, 5, 8, 2];
type Kind = SequenceNorm<unknown>['kind'];
/** The second sequence ends after two elements. */
const PRESENT = [1, 1, 1, 1, 1, 1, 1, 0, 0, 0];

const gains = <T>(ops: Ops<T>) => ({
  gain: ops.parameter('gain', [D], ones),
  bias: ops.parameter('bias', [D], zeros),
});
const queriesAndSequence = <T>(ops: Ops<T>, shared: boolean) => ({
  q: ops.parameter('queries', [shared ? 1 : N, R, D], normal(1)),
  x: ops.parameter('x', [N, L, D], normal(1)),
  allowed: ops.constant(PRESENT, [N, 1, L]),
});

function absorbed<T>(ops: Ops<T>, kind: Kind, shared: boolean): T {
  const { q, x, allowed } = queriesAndSequence(ops, shared);
  const sets = shared ? 1 : N;
  const weights = absorbedWeights(ops, 'w', { dim: D, heads: HEADS });
  const { gain, bias } = gains(ops);
  const norm: SequenceNorm<T> =
    kind === 'none' ? { kind } : kind === 'rms' ? { kind, gain } : { kind, gain, bias };
  const g = ops.matmul(ops.reshape(q, [sets * R, D]), ops.reshape(weights.queryKey, [D, HEADS * D]));
  const y = read(ops, ops.reshape(g, [sets, R * HEADS, D]), x, { norm, mask: forbid(ops, allowed), allowed });
  return ops.matmul(ops.reshape(y, [N * R, HEADS * D]), ops.reshape(weights.valueOut, [HEADS * D, D]));
}

function projected<T>(ops: Ops<T>, kind: Kind, shared: boolean): T {
  const { q, x, allowed } = queriesAndSequence(ops, shared);
  const { gain, bias } = gains(ops);
  const normed = kind === 'none' ? x : kind === 'rms' ? ops.rmsNorm(x, gain) : ops.layerNorm(x, gain, bias);
  const rows = ops.reshape(normed, [N * L, D]);
  const part = (name: string, y: T, n: number): T => ops.reshape(linear(ops, name, y, D), [N, n, D]);
  const everyRow = ops.reshape(ops.broadcastTo(q, [N, R, D]), [N * R, D]);
  const y = attend(ops, part('w.q', everyRow, R), part('w.k', rows, L), part('w.v', rows, L), {
    heads: HEADS,
    allowed: ops.reshape(allowed, [N, 1, 1, L]),
  });
  return linear(ops, 'w.out', ops.reshape(y, [N * R, D]), D);
}

describe('attention with absorbed projections', () => {
  for (const kind of ['none', 'rms', 'layer'] as const)
    for (const shared of [true, false])
      test(`is attention with projections, norm ${kind}, queries ${shared ? 'shared' : 'by sequence'}`, () => {
        const random = randomSource(6);
        const weights = new Map<string, Float64Array>();
        const start = (name: string, size: number): void => {
          // Elements off zero, so that the mean of a layer norm counts.
          weights.set(
            name,
            Float64Array.from({ length: size }, () => 2 * random.next() - 0.6),
          );
        };
        for (const name of ['w.q', 'w.k', 'w.v', 'w.out']) start(name, D * D);
        start('queries', (shared ? 1 : N) * R * D);
        start('x', N * L * D);
        start('gain', D);
        start('bias', D);
        const compute = (build: (ops: Ops<Array64>, kind: Kind, shared: boolean) => Array64): Float64Array =>
          build(new ReferenceOps(weights, {}), kind, shared).data;
        const [expected, actual] = [compute(projected), compute(absorbed)];
        expected.forEach((value, i) => {
          assert.ok(Math.abs(value - actual[i]!) < 1e-12, `${i}: ${value}, ${actual[i]}`);
        });
        assert.ok(expected.some((v) => Math.abs(v) > 0.1));
      });

  test('gradients agree with finite differences', async () => {
    for (const kind of ['none', 'rms', 'layer'] as const)
      await checkGradients(
        (ops) => {
          const y = absorbed(ops, kind, kind === 'layer');
          return ops.sum(ops.mul(y, y), [0, 1]);
        },
        { perParameter: 6 },
      );
  });

  test('pays where the sequence is long and the queries few', () => {
    assert.ok(absorbingPays(10, 500, 8, 1024));
    assert.ok(absorbingPays(4, 30, 4, 128));
    assert.ok(!absorbingPays(500, 30, 4, 128));
    assert.ok(!absorbingPays(48, 12, 4, 64));
  });
});
