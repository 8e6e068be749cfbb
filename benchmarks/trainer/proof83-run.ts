/**
 * Trains preset proof83 in a process of its own: `node proof83-run.ts THREADS STEPS [FOLDER]`. Prints one JSON line. With FOLDER
 * the peer's files of weights and batches are written there instead.
 */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import {
  compileGradient,
  compileOptimizer,
  OrtEngine,
  proof83,
  proof83Inputs,
  proof83Loss,
} from '@onemall/learning/bench';
import { peerName, proof83Batch, proof83Weights } from './proof83-data.ts';

const BATCHES = 4;
const WARM_STEPS = 2;
const [threads = '1', steps = '12', folder] = process.argv.slice(2);

const { gradient, graph } = compileGradient((ops) => {
  const loss = proof83Loss(ops, proof83);
  return { loss, metrics: { loss } };
});
const parameters = [...graph.parameters.values()].map((p) => ({
  ...p,
  size: p.shape.reduce((a, b) => a * b, 1),
}));
if (folder !== undefined) writePeerFiles(folder);
else await train();

async function train(): Promise<void> {
  // The peer clips nothing and decays every weight.
  const adamw = {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
    maxGradNorm: Number.POSITIVE_INFINITY,
  };
  const program = compileOptimizer(graph, adamw, () => 1);
  const engine = await OrtEngine.start(
    { ...program, parameters: program.parameters.map((p) => ({ ...p, decay: true })) },
    1,
    Number(threads),
  );
  const { tensors } = await engine.state();
  for (const { name, size, init } of parameters) tensors.set(name, proof83Weights(name, size, init));
  await engine.restore(tensors, 0);
  tensors.clear();
  await engine.addGradient('train', gradient);
  const batches = Array.from({ length: BATCHES }, (_, i) => proof83Batch(proof83, i + 1));
  const losses: number[] = [];
  const stepMs: number[] = [];
  let cpu = process.cpuUsage();
  for (let i = 0; i < Number(steps); i++) {
    if (i === WARM_STEPS) cpu = process.cpuUsage();
    // Step feeds are handed over, so each step gets a copy.
    const feeds = structuredClone(batches[i % BATCHES]!);
    const started = performance.now();
    const { metrics } = await engine.step('train', feeds, 1e-3);
    stepMs.push(performance.now() - started);
    losses.push(metrics.loss![0]!);
  }
  const { user, system } = process.cpuUsage(cpu);
  const sorted = stepMs.slice(WARM_STEPS).sort((a, b) => a - b);
  const medianStepMs = sorted[sorted.length >> 1]!;
  console.log(
    JSON.stringify({
      params: parameters.reduce((n, p) => n + p.size, 0),
      nodes: gradient.nodeCount,
      losses: losses.slice(0, 3),
      medianStepMs,
      cpuStepMs: (user + system) / 1000 / sorted.length,
      samplesPerSec: (proof83.batchSize / medianStepMs) * 1000,
      peakRssMB: process.resourceUsage().maxRSS >> 10,
    }),
  );
  await engine.close();
}

/** params.bin, batches.bin and manifest.json, as the peer reads them. */
function writePeerFiles(out: string): void {
  mkdirSync(out, { recursive: true });
  const write = (name: string, arrays: Iterable<Float32Array | Int32Array>): void => {
    const file = openSync(path.join(out, name), 'w');
    for (const array of arrays)
      writeSync(file, new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    closeSync(file);
  };
  const inputs = Object.entries(proof83Inputs(proof83)).map(([name, spec]) => ({ name, ...spec }));
  write(
    'params.bin',
    parameters.map(({ name, size, init }) => proof83Weights(name, size, init)),
  );
  write(
    'batches.bin',
    Array.from({ length: BATCHES }, (_, i) => proof83Batch(proof83, i + 1)).flatMap((batch) =>
      inputs.map(({ name }) => batch[name]!),
    ),
  );
  const c = proof83;
  const cfg = {
    ...{ B: c.batchSize, L: c.length, S: c.sequences, Q: c.queries, D: c.dim, H: c.heads, layers: c.layers },
    ...{ E: c.experts, K: c.activeExperts, F: c.ffnDim, V: c.codes, levels: c.levels },
    ...{ cap: c.capacityFactor, tau: c.temperature, clip: c.clip, qf: c.queryFfnDim },
  };
  const params = parameters.map(({ name, shape }) => ({ name: peerName(name), shape }));
  writeFileSync(path.join(out, 'manifest.json'), JSON.stringify({ cfg, params, inputs, batches: BATCHES }));
}
