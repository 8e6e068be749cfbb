/** Compares values and gradients of the ONNX graph with the float64 reference and its finite differences. */
import assert from 'node:assert/strict';
import * as ort from 'onnxruntime-node';
import { type Arrays, cpuSession, OrtSessions, tensorOf } from '../src/engine/ort-sessions.ts';
import { compileGradient, compileOptimizer } from '../src/engine/program.ts';
import { OnnxGraph } from '../src/onnx/graph.ts';
import type { Ops } from '../src/ops.ts';
import { ReferenceOps } from './reference-ops.ts';

/** A model as a function of any engine: gives the scalar loss. */
export type Model = <T>(ops: Ops<T>) => T;

const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 };

export interface CheckOptions {
  feeds?: Arrays;
  weights?: (name: string, size: number) => Float32Array;
  /** Elements of each parameter that are differenced; all where fewer. */
  perParameter?: number;
  step?: number;
  tolerance?: number;
}

/**
 * float32 keeps 24 bits, so a sum of some hundred terms near 1 is off by about 1e-5; the central difference in float64 with
 * step 1e-4 is off by about 1e-8. Tolerance 2e-4 of the greatest gradient element (at least 1e-2 in all) leaves a
 * factor of ten, and any wrong term is far larger.
 */
export async function checkGradients(model: Model, options: CheckOptions = {}): Promise<number> {
  const { feeds = {}, perParameter = 12, step = 1e-4, tolerance = 2e-4 } = options;
  const { gradient, graph } = compileGradient((ops) => {
    const loss = model(ops);
    return { loss, metrics: { loss } };
  });
  const sessions = new OrtSessions(
    compileOptimizer(graph, adamw, () => 1),
    7,
    1,
  );
  await sessions.addGradient('model', gradient);
  if (options.weights) {
    const { tensors } = sessions.state();
    for (const [name, data] of tensors)
      if (graph.parameters.has(name)) data.set(options.weights(name, data.length));
    sessions.restore(tensors, 0);
  }
  const gradients = await sessions.gradients('model', feeds);
  const start = sessions.state().tensors;
  const outcome = await sessions.step('model', feeds, 0);
  await sessions.close();

  const weights = new Map([...start].map(([name, data]) => [name, Float64Array.from(data)]));
  const lossNow = (): number => model(new ReferenceOps(weights, feeds)).data[0]!;
  const expected = lossNow();
  const loss = outcome.metrics.loss![0]!;
  assert.ok(
    Math.abs(loss - expected) <= 2e-5 * Math.max(1, Math.abs(expected)),
    `loss ${loss}, reference ${expected}`,
  );
  let checked = 0;
  for (const [name, values] of Object.entries(gradients)) {
    const data = weights.get(name)!;
    const scale = values.reduce((max, g) => Math.max(max, Math.abs(g)), 1e-2);
    const stride = Math.max(1, Math.floor(values.length / perParameter));
    for (let i = 0; i < values.length; i += stride) {
      const at = data[i]!;
      data[i] = at + step;
      const up = lossNow();
      data[i] = at - step;
      const down = lossNow();
      data[i] = at;
      const difference = (up - down) / (2 * step);
      assert.ok(
        Math.abs(difference - values[i]!) <= tolerance * scale,
        `${name}[${i}]: gradient ${values[i]}, finite difference ${difference}, scale ${scale}`,
      );
      checked++;
    }
  }
  assert.ok(checked > 0, 'the model has parameters');
  return checked;
}

/** Values of a computation without parameters, by the ONNX graph and by the reference. */
export async function evaluateBoth(
  build: <T>(ops: Ops<T>) => Record<string, T>,
  feeds: Arrays,
): Promise<Record<string, { onnx: number[]; reference: number[] }>> {
  const graph = new OnnxGraph({ portable: true });
  for (const [name, value] of Object.entries(build(graph))) graph.builder.output(name, value);
  const session = await ort.InferenceSession.create(graph.builder.encode(), cpuSession(1));
  const inputs = Object.fromEntries(
    [...graph.inputs.values()].map(({ name, shape }) => [name, tensorOf(feeds[name]!, shape)]),
  );
  const result = await session.run(inputs);
  await session.release();
  const reference = build(new ReferenceOps(new Map(), feeds));
  return Object.fromEntries(
    Object.entries(reference).map(([name, value]) => [
      name,
      { onnx: Array.from(result[name]!.data as Float32Array), reference: Array.from(value.data) },
    ]),
  );
}
