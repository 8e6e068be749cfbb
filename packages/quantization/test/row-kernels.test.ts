import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { squaredDistance } from '../src/index.ts';
import { paddedDim, RowKernels, SCORES_AT_ONCE } from '../src/row-kernels.ts';

const number = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 });
/** Two rows of one length. */
const pair = fc
  .integer({ min: 1, max: 41 })
  .chain((dim) =>
    fc.tuple(
      fc.array(number, { minLength: dim, maxLength: dim }),
      fc.array(number, { minLength: dim, maxLength: dim }),
    ),
  );

function taken(t: TestContext): RowKernels {
  const kernels = RowKernels.take();
  t.after(() => kernels.giveBack());
  return kernels;
}

/** Two padded rows in memory, and where they lie. */
function placed(kernels: RowKernels, a: readonly number[], b: readonly number[]) {
  const wide = paddedDim(a.length);
  const [x, y, bytes] = kernels.reserve([wide, wide, wide / 4]);
  kernels.floats(x!).set(a);
  kernels.floats(y!).set(b);
  return { x: x!.offset, y: y!.offset, bytes: bytes!, size: wide * 4 };
}

describe('RowKernels', () => {
  test('a distance is that of squaredDistance, bit by bit, for every length', (t) => {
    const kernels = taken(t);
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const { x, y, size } = placed(kernels, a, b);
        const expected = squaredDistance(Float32Array.from(a), 0, Float32Array.from(b), 0, a.length);
        assert.equal(kernels.distance(x, y, size), expected);
        const plain = a.reduce((sum, v, d) => sum + (v - b[d]!) ** 2, 0);
        assert.ok(Math.abs(expected - plain) <= 1e-12 * plain);
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  test('rounding gives the nearest steps, and what it says of lengths is true of them', (t) => {
    const kernels = taken(t);
    fc.assert(
      fc.property(pair, ([a, shift]) => {
        const { x, y, bytes, size } = placed(kernels, a, shift);
        const greatest = kernels.greatest(x, y, size);
        const values = a.map((v, d) => v - shift[d]!);
        const most = Math.max(...values.map(Math.abs));
        assert.ok(Math.abs(greatest - most) <= 1e-6 * most);
        const scale = Math.fround(greatest / 127) || 1;
        const [square, kept, lost] = kernels.round(x, y, bytes.offset, size, scale);
        const rounded = [...kernels.bytes(bytes)].map((byte) => (byte - 128) * scale);
        for (const [d, v] of values.entries())
          assert.ok(Math.abs(rounded[d]! - v) <= scale * (0.5 + 1e-6), `${v} became ${rounded[d]}`);
        assert.ok(rounded.slice(a.length).every((v) => v === 0));
        const near = (got: number, of: readonly number[]) => {
          const sum = of.reduce((total, v) => total + v * v, 0);
          assert.ok(Math.abs(got - sum) <= 1e-9 * sum, `${got} against ${sum}`);
        };
        near(square!, values);
        near(kept!, rounded);
        near(
          lost!,
          values.map((v, d) => v - rounded[d]!),
        );
      }),
      { seed: 2, numRuns: 200 },
    );
  });

  test('marks the scores that are not below a limit', (t) => {
    const kernels = taken(t);
    const [place] = kernels.reserve([SCORES_AT_ONCE]);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -3, max: 3 }), {
          minLength: SCORES_AT_ONCE,
          maxLength: SCORES_AT_ONCE,
        }),
        fc.integer({ min: -4, max: 4 }),
        (scores, limit) => {
          kernels.floats(place!).set(scores);
          const mask = kernels.above(place!.offset, limit);
          for (const [i, score] of scores.entries()) assert.equal(((mask >>> i) & 1) === 1, score >= limit);
        },
      ),
      { seed: 3, numRuns: 200 },
    );
  });

  test('a memory that was given back is used again, and is empty', () => {
    const first = RowKernels.take();
    const [place] = first.reserve([100]);
    first.floats(place!).fill(7);
    first.giveBack();
    const again = RowKernels.take();
    assert.equal(again, first);
    const [anew] = again.reserve([200]);
    assert.ok(again.floats(anew!).every((v) => v === 0));
    again.giveBack();
  });
});
