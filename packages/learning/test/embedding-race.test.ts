import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OrtSessions } from '../src/engine/ort-sessions.ts';
import { compileGradient, compileOptimizer } from '../src/engine/program.ts';
import { retrievalPass } from '../src/models/onemall.ts';
import { retrievalFeeds } from '../src/models/onemall-feeds.ts';
import { retrievalPresets } from '../src/models/presets.ts';
import { LAYOUT, randomSamples, randomSource } from './synthetic.ts';

test('embedding gradients of a step are bit for bit the same on one thread and, twice, on two', async () => {
  const preset = { ...retrievalPresets.small, layers: 1, historyLength: 40 };
  const sizes = { preset, layout: LAYOUT, batchSize: 64, historyLength: 40 };
  const { gradient, graph } = compileGradient((ops) => retrievalPass(ops, sizes));
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 };
  const program = compileOptimizer(graph, adamw, () => 1);
  const samples = randomSamples(randomSource(1), 64, 40);
  const options = { logQ: new Float32Array(64), rlScale: 0, rlNormalizer: 1 };
  const feeds = retrievalFeeds(samples, [], sizes, options);
  const runs: Record<string, Float32Array>[] = [];
  for (const numThreads of [1, 2, 2]) {
    const sessions = new OrtSessions(program, 4, numThreads);
    await sessions.addGradient('train', gradient);
    runs.push(await sessions.gradients('train', feeds));
    await sessions.close();
  }
  const tables = gradient.tables.map((t) => t.table);
  assert.deepEqual(tables.toSorted(), ['item.hash', 'sid.level1', 'sid.level2', 'sid.level3']);
  for (const table of tables) {
    const [one, ...two] = runs.map((run) => Buffer.from(run[table]!.buffer));
    assert.ok(runs[0]![table]!.some((v) => v !== 0));
    for (const other of two) assert.ok(one!.equals(other), `${table} differs between 1 and 2 threads`);
  }
});
