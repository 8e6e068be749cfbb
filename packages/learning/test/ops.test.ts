import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { normal, type Ops } from '../src/ops.ts';
import { checkGradients, evaluateBoth } from './gradients.ts';
import { differentiable, exact } from './op-cases.ts';
import { type Array64, ReferenceOps } from './reference-ops.ts';
import { randomSource } from './synthetic.ts';

const random = randomSource(5);
const weights = (_name: string, size: number) =>
  Float32Array.from({ length: size }, () => 2 * random.next() - 1);
const positive = (_name: string, size: number) =>
  Float32Array.from({ length: size }, () => 0.3 + random.next());
/** Where values come from, and what computes nothing. */
const SOURCES = ['shape', 'parameter', 'buffer', 'assign', 'input', 'constant', 'constantInt'];

describe('gradients agree with finite differences of a float64 reference', () => {
  for (const [name, { model, positive: isPositive }] of Object.entries(differentiable))
    test(name, async () => {
      await checkGradients(model, { weights: isPositive ? positive : weights });
    });
});

test('every operation of the interface is among the checked ones', () => {
  const called = new Set<string>();
  const weights = new Map<string, Float64Array>();
  const recorder = (feeds: Record<string, ArrayLike<number>>): Ops<Array64> =>
    new Proxy(new ReferenceOps(weights, feeds), {
      get(target, name) {
        const member = Reflect.get(target, name, target) as (...args: unknown[]) => unknown;
        return (...args: unknown[]) => {
          called.add(String(name));
          if (name === 'parameter') {
            const [parameter, shape] = args as [string, readonly number[]];
            weights.set(parameter, new Float64Array(shape.reduce((m, n) => m * n, 1)).fill(0.5));
          }
          return member.apply(target, args);
        };
      },
    });
  for (const { model } of Object.values(differentiable)) model(recorder({}));
  exact.build(recorder({ x: exact.x, ids: exact.ids }));
  const members = Object.getOwnPropertyNames(ReferenceOps.prototype).filter((name) => name !== 'constructor');
  const unchecked = members.filter((name) => !called.has(name) && !SOURCES.includes(name));
  assert.deepEqual(unchecked, [], 'add a case to op-cases.ts');
  assert.ok(members.length > 40, `${members.length} operations`);
});

test('stopGradient lets no gradient through', async () => {
  const { compileGradient } = await import('../src/engine/program.ts');
  const a = <T>(ops: Ops<T>, shape: readonly number[]): T => ops.parameter('a', shape, normal(1));
  const b = <T>(ops: Ops<T>, shape: readonly number[]): T => ops.parameter('b', shape, normal(1));
  const { gradient } = compileGradient((ops) => {
    const x = a(ops, [3]);
    const y = b(ops, [3]);
    const loss = ops.sum(ops.mul(ops.stopGradient(x), y), [0]);
    return { loss, metrics: {} };
  });
  assert.deepEqual(Object.keys(gradient.dense), ['b']);
  assert.deepEqual(gradient.unused, ['a']);
});

test('operations without a gradient agree with the reference', async () => {
  const { x, ids, build } = exact;
  for (const [name, { onnx, reference }] of Object.entries(await evaluateBoth(build, { x, ids }))) {
    // -0 and 0 are one number here
    assert.deepEqual(
      onnx.map((v) => v + 0),
      reference.map((v) => v + 0),
      name,
    );
  }
});

test('shapes that do not fit are refused when the graph is built', async () => {
  const { OnnxGraph } = await import('../src/onnx/graph.ts');
  const graph = new OnnxGraph();
  const x = graph.input('x', [2, 3], 'float32');
  assert.throws(() => graph.add(x, graph.constant([1, 2], [2])), /\[2,3\] and \[2\] do not broadcast/);
  assert.throws(() => graph.matmul(x, x), /Inner sizes of \[2,3\] and \[2,3\] differ/);
  assert.throws(() => graph.reshape(x, [5]), /Cannot reshape \[2,3\] to \[5\]/);
  const w = graph.parameter('w', [3, 3], normal(1));
  assert.throws(() => graph.parameter('w', [3, 4], normal(1)), /w has shape \[3,3\], asked for \[3,4\]/);
  const table = graph.parameter('table', [100, 3], normal(1));
  const both = graph.sum(
    graph.add(graph.gather(table, graph.constantInt([1], [1])), graph.slice(table, [0, 0], [1, 3])),
    [0, 1],
  );
  assert.throws(() => graph.backward(both), /table is read as a table and as a matrix/);
  assert.ok(w.needsGradient);
});
