/**
 * One AdamW update of all parameters as an ONNX graph, after clipping by the global gradient norm.
 *
 *   g  = gradient x min(1, maxNorm / norm)         norm over all parameters together
 *   m' = b1 m + (1 - b1) g                          v' = b2 v + (1 - b2) g^2
 *   w' = w (1 - lr decay) - lr rate (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t)) + eps)
 *
 * Loshchilov and Hutter 2019, algorithm 2. lr comes in on every step, so warm-up and schedules live outside.
 */
import { GraphBuilder, type Value } from './graph-builder.ts';

export interface AdamWOptions {
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Decoupled weight decay of the parameters that ask for it. */
  weightDecay: number;
  maxGradNorm: number;
}
export interface OptimizedParameter {
  name: string;
  shape: readonly number[];
  decay: boolean;
  /** Multiplies the learning rate. */
  rate: number;
}

/** Names of the graph's inputs and outputs of one parameter. */
export const optimizerNames = (parameter: string) => ({
  gradient: `gradient.${parameter}`,
  moment1: `m.${parameter}`,
  moment2: `v.${parameter}`,
  next: `next.${parameter}`,
  nextMoment1: `next.m.${parameter}`,
  nextMoment2: `next.v.${parameter}`,
});

/**
 * Inputs: learningRate, correction1 = 1 - b1^t, correction2 = 1 - b2^t (scalars), and per parameter itself, its gradient and
 * moments. Outputs: gradNorm (before clipping, scalar) and the three next values per parameter.
 */
export function adamwGraph(parameters: readonly OptimizedParameter[], options: AdamWOptions): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const { beta1, beta2, epsilon, weightDecay, maxGradNorm } = options;
  const learningRate = g.input('learningRate', [], 'float32');
  const correction1 = g.input('correction1', [], 'float32');
  const correction2 = g.input('correction2', [], 'float32');

  const gradients = new Map<string, Value>(
    parameters.map((p) => [p.name, g.input(optimizerNames(p.name).gradient, p.shape, 'float32')]),
  );
  const squares = [...gradients.values()].map((v) =>
    g.emit('ReduceSumSquare', [v], [], 'float32', { keepdims: { kind: 'int', value: 0 } }),
  );
  const norm = g.unary('Sqrt', squares.reduce(g.add));
  g.output('gradNorm', norm);
  const clipFactor = g.binary('Min', g.float(1), g.div(g.float(maxGradNorm), g.add(norm, g.float(1e-12))));

  // The clip factor and the corrections are folded into scalars: each pass over the weights costs memory bandwidth.
  //   sqrt(v / c2) + eps = (sqrt(v) + eps sqrt(c2)) / sqrt(c2)
  const gain1 = g.mul(g.float(1 - beta1), clipFactor);
  const gain2 = g.mul(g.float(1 - beta2), g.mul(clipFactor, clipFactor));
  const rootCorrection2 = g.unary('Sqrt', correction2);
  const smallest = g.mul(g.float(epsilon), rootCorrection2);
  const stepSize = g.div(g.mul(learningRate, rootCorrection2), correction1);

  for (const { name, shape, decay, rate } of parameters) {
    const names = optimizerNames(name);
    const weight = g.input(name, shape, 'float32');
    const moment1 = g.input(names.moment1, shape, 'float32');
    const moment2 = g.input(names.moment2, shape, 'float32');
    const gradient = gradients.get(name)!;
    const next1 = g.add(g.mul(moment1, g.float(beta1)), g.mul(gradient, gain1));
    const next2 = g.add(g.mul(moment2, g.float(beta2)), g.mul(g.mul(gradient, gradient), gain2));
    const direction = g.div(next1, g.add(g.unary('Sqrt', next2), smallest));
    const update = g.mul(direction, rate === 1 ? stepSize : g.mul(stepSize, g.float(rate)));
    const shrink = g.sub(g.float(1), g.mul(learningRate, g.float(weightDecay * rate)));
    const kept = decay && weightDecay > 0 ? g.mul(weight, shrink) : weight;
    g.output(names.next, g.sub(kept, update));
    g.output(names.nextMoment1, next1);
    g.output(names.nextMoment2, next2);
  }
  return g.encode();
}
