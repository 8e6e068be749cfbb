import { sizeOf } from './onnx/graph-builder.ts';
import type { Initializer, Shape } from './ops.ts';

/**
 * Initial values of a tensor: a pure function of (seed, name), so that adding a tensor changes no other.
 * Normal values come from Box and Muller over sfc32 (Doty-Humphrey, PractRand), computed in float64.
 */
export function initialWeights(seed: number, name: string, shape: Shape, init: Initializer): Float32Array {
  const values = new Float32Array(sizeOf(shape));
  if (init.kind === 'zeros') return values;
  if (init.kind === 'ones') return values.fill(1);
  const next = uniform(seed, name);
  for (let i = 0; i < values.length; i += 2) {
    const radius = init.std * Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Uniform numbers in [0, 1) by sfc32, seeded by (seed, name). */
export function uniform(seed: number, name: string): () => number {
  let a = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) a = Math.imul(a ^ name.charCodeAt(i), 0x01000193);
  let b = seed | 0;
  let c = 0x9e3779b9 | 0;
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4_294_967_296;
  };
  for (let i = 0; i < 16; i++) next();
  return next;
}
