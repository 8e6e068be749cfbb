import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { adamwFactors } from '../src/optimizers/adamw.ts';
import { KernelMemory } from '../src/optimizers/kernels.ts';
import { randomSource } from './synthetic.ts';

/** Arrays in a new memory, in the order of the given values. */
function memoryWith(...arrays: readonly (readonly number[])[]): {
  memory: KernelMemory;
  views: Float32Array[];
} {
  const memory = new KernelMemory();
  const places = memory.reserve(arrays.map((a) => a.length));
  const views = places.map((place) => memory.floats(place));
  views.forEach((view, i) => {
    view.set(arrays[i]!);
  });
  return { memory, views };
}

describe('addRows', () => {
  for (const dim of [3, 8])
    test(`adds every row in order, with many rows on one place, rows of ${dim}`, () => {
      const [places, n] = [70, 4000];
      const random = randomSource(2);
      const memory = new KernelMemory();
      const [tablePlace, idsPlace, rowsPlace] = memory.reserve([places * dim, n, n * dim]) as [
        { offset: number; length: number },
        { offset: number; length: number },
        { offset: number; length: number },
      ];
      const table = memory.floats(tablePlace).fill(0.25);
      const ids = memory.ints(idsPlace).map(() => Math.floor(random.next() ** 3 * places));
      memory.ints(idsPlace).set(ids);
      const rows = memory.floats(rowsPlace).map(() => random.next() - 0.5);
      memory.floats(rowsPlace).set(rows);
      const expected = table.slice();
      for (let i = 0; i < n; i++)
        for (let d = 0; d < dim; d++) expected[ids[i]! * dim + d]! += rows[i * dim + d]!;
      memory.addRows(table, memory.ints(idsPlace), memory.floats(rowsPlace));
      assert.deepEqual(table, expected);
    });
});

test('the sum of squares is taken in float64 and stops at the end of the array', () => {
  const random = randomSource(3);
  const values = Array.from({ length: 1001 }, () => Math.fround(random.next() * 1e3));
  const { memory, views } = memoryWith(values, [7, 7, 7]);
  const expected = values.reduce((sum, v) => sum + v * v, 0);
  assert.ok(Math.abs(memory.sumOfSquares(views[0]!) / expected - 1) < 1e-13);
});

describe('AdamW', () => {
  const options = { beta1: 0.9, beta2: 0.99, epsilon: 1e-6, weightDecay: 0.1, maxGradNorm: 0.5 };

  test('ten steps with clipping and decay follow the float64 formulas, and leave neighbours alone', () => {
    const random = randomSource(4);
    const n = 37;
    const zero = new Array<number>(n).fill(0);
    const start = Array.from({ length: n }, () => Math.fround(random.next() - 0.5));
    const { memory, views } = memoryWith(start, zero, zero, zero, [1, 2, 3, 4, 5]);
    const [w, m, v, g, after] = views as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const [w64, m64, v64] = [Float64Array.from(start), new Float64Array(n), new Float64Array(n)];
    for (let t = 1; t <= 10; t++) {
      g.set(Array.from({ length: n }, () => random.next() - 0.3));
      const gradNorm = Math.sqrt(memory.sumOfSquares(g));
      const step = { t, learningRate: 0.01 * t, gradNorm };
      memory.adamw(w, m, v, g, adamwFactors(options, step, { decay: true, rate: 0.5 }));
      const rate = 0.5 * 0.01 * t;
      for (let i = 0; i < n; i++) {
        const gradient = g[i]! * Math.min(1, 0.5 / gradNorm);
        m64[i] = 0.9 * m64[i]! + 0.1 * gradient;
        v64[i] = 0.99 * v64[i]! + 0.01 * gradient ** 2;
        const direction = m64[i]! / (1 - 0.9 ** t) / (Math.sqrt(v64[i]! / (1 - 0.99 ** t)) + 1e-6);
        w64[i] = w64[i]! * (1 - rate * 0.1) - rate * direction;
      }
    }
    w.forEach((value, i) => {
      assert.ok(Math.abs(value - w64[i]!) < 1e-6, `${i}: ${value}, ${w64[i]}`);
    });
    assert.deepEqual([...after], [1, 2, 3, 4, 5]);
  });

  test('moments that no longer matter become zero instead of denormal', () => {
    const { memory, views } = memoryWith([1, 1], [1e-29, -1e-31], [1e-31, 1e-20], [0, 0]);
    const [w, m, v, g] = views as [Float32Array, Float32Array, Float32Array, Float32Array];
    const step = { t: 100, learningRate: 0, gradNorm: 0 };
    memory.adamw(w, m, v, g, adamwFactors(options, step, { decay: false, rate: 1 }));
    assert.ok(m[0]! > 0 && m[1] === 0);
    assert.ok(v[0] === 0 && v[1]! > 0);
    assert.deepEqual([...w], [1, 1]);
  });
});

test('a memory grows with its arrays intact and refuses more than 4 GiB', () => {
  const memory = new KernelMemory();
  const [first] = memory.reserve([3]);
  memory.floats(first!).set([1, 2, 3]);
  const [second] = memory.reserve([1 << 20]);
  assert.deepEqual([...memory.floats(first!)], [1, 2, 3]);
  assert.ok(memory.floats(second!).every((v) => v === 0));
  assert.throws(() => memory.reserve([1 << 30]), /Choose a smaller preset/);
});
