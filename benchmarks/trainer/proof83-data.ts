/** Weights and batches of preset proof83 by the peer's generators (xorshift32), so that both start from the same numbers. */
import { type Proof83Sizes, proof83Inputs } from '@onemall/learning/bench';

type Arrays = Record<string, Float32Array | Int32Array>;

/** Numbers in [0, 1). */
function xorshift(seed: number): () => number {
  let s = seed >>> 0 || 1;
  return () => {
    s ^= s << 13;
    s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5;
    s >>>= 0;
    return s / 4_294_967_296;
  };
}

/** The peer's names of parts that the layers here call otherwise. */
export function peerName(parameter: string): string {
  return parameter
    .replace(/\.out$/, '.o')
    .replace(/\.moe\.up$/, '.moe.w1')
    .replace(/\.moe\.down$/, '.moe.w2');
}

/** Initial values of a parameter: sums of four uniform numbers, seeded by the peer's name. */
export function proof83Weights(
  parameter: string,
  size: number,
  init: { kind: 'zeros' | 'ones' } | { kind: 'normal'; std: number },
): Float32Array {
  const values = new Float32Array(size);
  if (init.kind !== 'normal') return init.kind === 'ones' ? values.fill(1) : values;
  let hash = 0x811c9dc5;
  for (const character of peerName(parameter))
    hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0;
  const random = xorshift(hash);
  for (let i = 0; i < size; i++)
    values[i] = (random() + random() + random() + random() - 2) * 1.732 * init.std;
  return values;
}

/** Batch `seed`; the target codes are those of the first event, so that the loss can fall. Masks are 0 or -1e9. */
export function proof83Batch(c: Proof83Sizes, seed: number): Arrays {
  const random = xorshift(Math.imul(seed, 2_654_435_761));
  const feeds: Arrays = {};
  for (let s = 0; s < c.sequences; s++) {
    for (let l = 0; l < c.levels; l++)
      feeds[`seq${s}_${l}`] = Int32Array.from({ length: c.batchSize * c.length }, () =>
        Math.floor(random() ** 2 * c.codes),
      );
    const mask = new Float32Array(c.batchSize * c.length);
    for (let row = 0; row < c.batchSize; row++) {
      const length = c.length - Math.floor(random() * c.length * 0.5);
      mask.fill(-1e9, row * c.length + length, (row + 1) * c.length);
    }
    feeds[`mask${s}`] = mask;
  }
  for (let l = 0; l < c.levels; l++)
    feeds[`code${l}`] = Int32Array.from(
      { length: c.batchSize },
      (_, row) => feeds[`seq0_${l}`]![row * c.length]!,
    );
  feeds.adv = Float32Array.from({ length: c.batchSize }, () => random() * 2 - 1);
  feeds.oldlp = Float32Array.from({ length: c.batchSize }, () => -3 * Math.log(c.codes) + random() * 0.2);
  return Object.fromEntries(Object.keys(proof83Inputs(c)).map((name) => [name, feeds[name]!]));
}
