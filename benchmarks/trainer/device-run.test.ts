import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CountingOps, proof83, starters, type TrainingEngine } from '@onemall/learning/bench';
import { type BenchmarkResult, exitCodeOf } from '../report/result.ts';
import { curveDifference, findDevices, matrixPeak, startOf, stepFlops, trainedCurve } from './device-run.ts';

const small = {
  ...proof83,
  ...{ batchSize: 6, length: 5, queries: 2, dim: 16, heads: 2, layers: 1, experts: 4 },
  ...{ ffnDim: 32, queryFfnDim: 16, codes: 12 },
};

test('an engine that is not onnxruntime on the CPU gives its loss curve, and one with another rate does not', async () => {
  const start = startOf(small);
  const curveOf = async (engine: TrainingEngine) => {
    const curve = await trainedCurve(engine, small, 20);
    await engine.close();
    return curve;
  };
  const expected = await curveOf(await starters.cpu(start));
  const { losses, stepMs } = await curveOf(await starters.wasm(start));
  assert.ok(stepMs > 0);
  assert.ok(expected.losses.at(-1)! < 0.9 * expected.losses[0]!, `${expected.losses}`);
  assert.ok(curveDifference(losses, expected.losses) < 1e-3);
  const slower = await curveOf(await starters.cpu({ ...start, rate: () => 0.5 }));
  assert.ok(curveDifference(slower.losses, expected.losses) > 0.01);
});

test('the peak is that of the products alone, whatever a run costs beside them', async () => {
  // a device of 1 GFLOP/s that needs 40 ms for everything else
  const size = 100;
  let atMs = 0;
  const counts = new Map<string, number>();
  const engine: Parameters<typeof matrixPeak>[0] = {
    async addForward(name, build) {
      const ops = new CountingOps();
      build(ops);
      counts.set(name, ops.flops);
    },
    async forward(name) {
      atMs += 40 + counts.get(name)! / 1e6;
      return { mean: Float32Array.of(1) };
    },
  };
  const peak = await matrixPeak(engine, { size, products: [2, 7], rounds: 3 }, () => atMs);
  assert.ok(Math.abs(peak / 1e9 - 1) < 1e-9, `${peak}`);
  await assert.rejects(
    matrixPeak(engine, { size, products: [2, 7], rounds: 3 }, () => 0),
    /too quick for matrices of 100 rows/,
  );
  const wrong = { ...engine, forward: async () => ({ mean: Float32Array.of(0.5) }) };
  await assert.rejects(matrixPeak(wrong, { size, products: [1, 2], rounds: 1 }), /have mean 0.5, expected 1/);
});

test('real products have the mean that is checked', async () => {
  let tick = 0;
  for (const name of ['cpu', 'wasm'] as const) {
    const engine = await starters[name](startOf(small));
    // by a clock of its own: how long they take is no matter here
    const peak = await matrixPeak(engine, { size: 64, products: [1, 3], rounds: 1 }, () => 2 ** tick++);
    assert.ok(peak > 0);
    await engine.close();
  }
});

test('a step has three times the products of its pass', () => {
  const ops = new CountingOps();
  startOf(small).pass(ops);
  assert.equal(stepFlops(small), 3 * ops.flops);
  // the heads alone: rows x dim x codes for each level, forward
  assert.ok(stepFlops(small) > 3 * 2 * small.batchSize * small.dim * small.codes * small.levels);
});

test('without a device every reason is told, and nothing measured is no success', async () => {
  const closed: string[] = [];
  const { working, reasons } = await findDevices(
    {
      tensorflow: async (start) => {
        const engine = await starters.cpu(start);
        const { close } = engine;
        return Object.assign(engine, {
          close: () => {
            closed.push('tensorflow');
            return close();
          },
        });
      },
      cuda: () => Promise.reject(new Error('no library libcudart\nat ...')),
      webgpu: () => Promise.reject(new Error('no adapter')),
    },
    startOf(small),
  );
  assert.deepEqual(working, []);
  assert.deepEqual(closed, ['tensorflow']);
  assert.deepEqual(reasons, [
    'tensorflow: starts, but on the CPU',
    'cuda: no library libcudart',
    'webgpu: no adapter',
  ]);
  const result: BenchmarkResult = {
    ...{ name: 'x', versions: {}, ours: {}, peer: null, ratios: {}, bars: [] },
  };
  const bar = { name: 'b', value: 2, bar: 1 };
  assert.equal(exitCodeOf(result), 0);
  assert.equal(exitCodeOf({ ...result, bars: [{ ...bar, ok: true }] }), 0);
  assert.equal(exitCodeOf({ ...result, bars: [{ ...bar, ok: false }] }), 1);
  assert.equal(exitCodeOf({ ...result, notMeasured: 'no accelerator' }), 3);
});
