/**
 * Finite scalar quantization (Mentzer et al. 2023) with two values per dimension, as the last level of OneMall's
 * tokenizer: an MLP squeezes the residual into `bits` numbers, the sign of each is one bit of the code, a second MLP
 * gives the residual back. Trained on the squared reconstruction error; the sign passes gradients straight through.
 */
import { QuantizationError, type RandomSource, sampleIndices, takeRows, type Vectors } from './vectors.ts';

export interface FsqLevel {
  kind: 'fsq';
  /** 2 ** bits */
  numCodes: number;
  bits: number;
  hidden: number;
  /** Residuals are divided by this before the encoder and multiplied by it after the decoder. */
  scale: number;
  /** float32, in this order: encoder [hidden, dim], [hidden], [bits, hidden], [bits], decoder [hidden, bits], [hidden], [dim, hidden], [dim] */
  weights: Float32Array;
}

export interface FsqTraining {
  hidden?: number;
  epochs?: number;
  batchSize?: number;
  learningRate?: number;
  /** More vectors than this are sampled down. */
  maxVectors?: number;
  /** Told before each epoch; what it throws ends the training. */
  onEpoch?: () => void;
  /** Begins from these weights and keeps their scale, so that codes go on meaning what they meant. */
  start?: FsqLevel;
}

/** Numbers in `weights`. */
export const fsqNumWeights = (dim: number, hidden: number, bits: number): number =>
  hidden * dim + hidden + bits * hidden + bits + hidden * bits + hidden + dim * hidden + dim;

type Network = ReturnType<typeof fsqLayers<Float64Array | Float32Array>>;

/** Views of one flat block of weights (or gradients) as the layers. */
export function fsqLayers<A extends Float32Array | Float64Array>(
  flat: A,
  dim: number,
  hidden: number,
  bits: number,
) {
  let at = 0;
  const part = (n: number): A => {
    at += n;
    return flat.subarray(at - n, at) as A;
  };
  return {
    w1: part(hidden * dim),
    b1: part(hidden),
    w2: part(bits * hidden),
    b2: part(bits),
    v1: part(hidden * bits),
    c1: part(hidden),
    v2: part(dim * hidden),
    c2: part(dim),
  };
}

/** out = W in + b */
function affine(
  out: Float64Array,
  w: Float32Array | Float64Array,
  b: Float32Array | Float64Array,
  input: Float64Array,
): void {
  const n = input.length;
  for (let r = 0, at = 0; r < out.length; r++) {
    let sum = b[r]!;
    for (let c = 0; c < n; c++) sum += w[at++]! * input[c]!;
    out[r] = sum;
  }
}

/** Gradients of an affine layer; adds to gw and gb, and writes W^T g to gIn where given. */
function affineBackward(
  g: Float64Array,
  w: Float32Array | Float64Array,
  input: Float64Array,
  gw: Float32Array | Float64Array,
  gb: Float32Array | Float64Array,
  gIn?: Float64Array,
): void {
  const n = input.length;
  gIn?.fill(0);
  for (let r = 0, at = 0; r < g.length; r++, at += n) {
    const gr = g[r]!;
    gb[r]! += gr;
    for (let c = 0; c < n; c++) gw[at + c]! += gr * input[c]!;
    if (gIn) for (let c = 0; c < n; c++) gIn[c]! += gr * w[at + c]!;
  }
}

/** Activations of one vector; reused from vector to vector. */
class Activations {
  readonly x: Float64Array;
  readonly h1: Float64Array;
  readonly z: Float64Array;
  readonly q: Float64Array;
  readonly h2: Float64Array;
  readonly y: Float64Array;
  constructor(dim: number, hidden: number, bits: number) {
    this.x = new Float64Array(dim);
    this.h1 = new Float64Array(hidden);
    this.z = new Float64Array(bits);
    this.q = new Float64Array(bits);
    this.h2 = new Float64Array(hidden);
    this.y = new Float64Array(dim);
  }
  squeeze(net: Network): void {
    affine(this.h1, net.w1, net.b1, this.x);
    for (let i = 0; i < this.h1.length; i++) this.h1[i] = Math.tanh(this.h1[i]!);
    affine(this.z, net.w2, net.b2, this.h1);
    for (let i = 0; i < this.z.length; i++) {
      this.z[i] = Math.tanh(this.z[i]!);
      this.q[i] = this.z[i]! >= 0 ? 1 : -1;
    }
  }
  restore(net: Network): void {
    affine(this.h2, net.v1, net.c1, this.q);
    for (let i = 0; i < this.h2.length; i++) this.h2[i] = Math.tanh(this.h2[i]!);
    affine(this.y, net.v2, net.c2, this.h2);
  }
}

/** @throws QuantizationError unless numCodes is a power of two from 2 to 65,536 */
export function trainFsq(
  vectors: Vectors,
  options: FsqTraining & { numCodes: number; random: RandomSource },
): FsqLevel {
  const { numCodes, random, hidden = 32, epochs = 12, batchSize = 32, learningRate = 3e-3 } = options;
  const bits = Math.log2(numCodes);
  if (!Number.isInteger(bits) || bits < 1 || bits > 16)
    throw new QuantizationError(
      `FSQ with two values per dimension needs a power of two of codes from 2 to 65,536, got ${numCodes}`,
    );
  const { data, numVectors, dim } = takeRows(
    vectors,
    sampleIndices(vectors.numVectors, options.maxVectors ?? 20_000, random),
  );
  let squares = 0;
  for (const v of data) squares += v * v;
  const { start } = options;
  if (start && start.weights.length !== fsqNumWeights(dim, hidden, bits))
    throw new QuantizationError(
      `FSQ of ${bits} bits over ${dim} numbers cannot begin from ${start.weights.length} weights`,
    );
  const scale = start?.scale ?? Math.fround(Math.sqrt(squares / data.length) || 1);

  const weights = new Float64Array(fsqNumWeights(dim, hidden, bits));
  const net = fsqLayers(weights, dim, hidden, bits);
  const init = (w: Float64Array, inputs: number): void => {
    for (let i = 0; i < w.length; i++) w[i] = (2 * random.next() - 1) * Math.sqrt(3 / inputs);
  };
  if (start) weights.set(start.weights);
  else {
    init(net.w1, dim);
    init(net.w2, hidden);
    init(net.v1, bits);
    init(net.v2, hidden);
  }

  const gradient = new Float64Array(weights.length);
  const grad = fsqLayers(gradient, dim, hidden, bits);
  const adam = new Adam(weights.length);
  const act = new Activations(dim, hidden, bits);
  const gy = new Float64Array(dim);
  const gh = new Float64Array(hidden);
  const gq = new Float64Array(bits);
  const order = Int32Array.from({ length: numVectors }, (_, i) => i);
  const totalSteps = epochs * Math.ceil(numVectors / batchSize);
  let step = 0;
  for (let epoch = 0; epoch < epochs; epoch++) {
    options.onEpoch?.();
    for (let i = numVectors - 1; i > 0; i--) {
      const j = Math.floor(random.next() * (i + 1));
      const swap = order[i]!;
      order[i] = order[j]!;
      order[j] = swap;
    }
    for (let from = 0; from < numVectors; from += batchSize) {
      const to = Math.min(numVectors, from + batchSize);
      gradient.fill(0);
      for (let n = from; n < to; n++) {
        for (let d = 0, at = order[n]! * dim; d < dim; d++) act.x[d] = data[at++]! / scale;
        act.squeeze(net);
        act.restore(net);
        for (let d = 0; d < dim; d++) gy[d] = (2 * (act.y[d]! - act.x[d]!)) / (to - from);
        affineBackward(gy, net.v2, act.h2, grad.v2, grad.c2, gh);
        for (let i = 0; i < hidden; i++) gh[i]! *= 1 - act.h2[i]! * act.h2[i]!;
        affineBackward(gh, net.v1, act.q, grad.v1, grad.c1, gq);
        // Straight through the sign: dq/dz = 1; dz/da is tanh's.
        for (let i = 0; i < bits; i++) gq[i]! *= 1 - act.z[i]! * act.z[i]!;
        affineBackward(gq, net.w2, act.h1, grad.w2, grad.b2, gh);
        for (let i = 0; i < hidden; i++) gh[i]! *= 1 - act.h1[i]! * act.h1[i]!;
        affineBackward(gh, net.w1, act.x, grad.w1, grad.b1);
      }
      adam.step(weights, gradient, learningRate * (1 - step++ / totalSteps));
    }
  }
  return { kind: 'fsq', numCodes, bits, hidden, scale, weights: Float32Array.from(weights) };
}

class Adam {
  readonly #m: Float64Array;
  readonly #v: Float64Array;
  #t = 0;
  constructor(size: number) {
    this.#m = new Float64Array(size);
    this.#v = new Float64Array(size);
  }
  step(weights: Float64Array, gradient: Float64Array, rate: number): void {
    this.#t++;
    const c1 = 1 - 0.9 ** this.#t;
    const c2 = 1 - 0.999 ** this.#t;
    for (let i = 0; i < weights.length; i++) {
      const g = gradient[i]!;
      const m = 0.9 * this.#m[i]! + 0.1 * g;
      const v = 0.999 * this.#v[i]! + 0.001 * g * g;
      this.#m[i] = m;
      this.#v[i] = v;
      weights[i]! -= (rate * (m / c1)) / (Math.sqrt(v / c2) + 1e-8);
    }
  }
}

/** Codes of residuals: bit i of a code is set where the i-th squeezed number is not negative. int32 [N] */
export function encodeFsq(level: FsqLevel, { data, numVectors, dim }: Vectors): Int32Array {
  const net = fsqLayers(level.weights, dim, level.hidden, level.bits);
  const act = new Activations(dim, level.hidden, level.bits);
  const codes = new Int32Array(numVectors);
  for (let i = 0; i < numVectors; i++) {
    for (let d = 0, at = i * dim; d < dim; d++) act.x[d] = data[at++]! / level.scale;
    act.squeeze(net);
    let code = 0;
    for (let b = 0; b < level.bits; b++) if (act.q[b]! > 0) code |= 1 << b;
    codes[i] = code;
  }
  return codes;
}

/** The residual that each code stands for: float32 [N, dim] */
export function decodeFsq(level: FsqLevel, codes: Int32Array, dim: number): Float32Array {
  const net = fsqLayers(level.weights, dim, level.hidden, level.bits);
  const act = new Activations(dim, level.hidden, level.bits);
  const out = new Float32Array(codes.length * dim);
  for (const [i, code] of codes.entries()) {
    for (let b = 0; b < level.bits; b++) act.q[b] = (code >> b) & 1 ? 1 : -1;
    act.restore(net);
    for (let d = 0; d < dim; d++) out[i * dim + d] = act.y[d]! * level.scale;
  }
  return out;
}
