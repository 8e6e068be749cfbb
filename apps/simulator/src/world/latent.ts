/** Vectors of the latent space, as rows of Float32Arrays. */
import type { SeededRandom } from '@onemall/service-kit';

/** Scales to length 1 in place; a zero vector stays. */
export function normalize(v: Float32Array): Float32Array {
  let sum = 0;
  for (let d = 0; d < v.length; d++) sum += v[d]! * v[d]!;
  const scale = sum > 0 ? 1 / Math.sqrt(sum) : 0;
  for (let d = 0; d < v.length; d++) v[d]! *= scale;
  return v;
}

/** Inner product of `a` with row `row` of `table` [rows, a.length]. */
export function dotRow(a: Float32Array, table: Float32Array, row: number): number {
  const dim = a.length;
  const at = row * dim;
  let sum = 0;
  for (let d = 0; d < dim; d++) sum += a[d]! * table[at + d]!;
  return sum;
}

/** A unit vector in a random direction. */
export function randomDirection(dim: number, random: SeededRandom): Float32Array {
  const v = new Float32Array(dim);
  for (let d = 0; d < dim; d++) v[d] = random.normal();
  return normalize(v);
}

/** The unit vector near `centre`: normalize(centre + spread * random direction). */
export function near(centre: Float32Array, spread: number, random: SeededRandom): Float32Array {
  const v = randomDirection(centre.length, random);
  for (let d = 0; d < v.length; d++) v[d] = centre[d]! + spread * v[d]!;
  return normalize(v);
}

/** Seed of an independent stream for one thing of one kind, the same whatever was drawn before. */
export function streamSeed(seed: number, kind: number, index: number): number {
  let h = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(kind + 1, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 15) ^ index, 0x27d4eb2f);
  return (h ^ (h >>> 13)) >>> 0;
}

/** Index below n with probability about proportional to 1 / (index + 1): Zipf's law with exponent 1. */
export const zipfIndex = (n: number, random: SeededRandom): number =>
  Math.min(n - 1, Math.floor(Math.exp(random.next() * Math.log(n + 1))) - 1);

/** The chance of each index that `zipfIndex` draws. */
export const zipfChance = (index: number, n: number): number =>
  Math.log((index + 2) / (index + 1)) / Math.log(n + 1);
