/**
 * A new codebook version keeps the code indices of the one before: codes of the new one are renumbered so that each stands
 * where the old one meant about the same. What a policy has learnt of a code then still holds for most items.
 */
import { type Codebook, type CodebookLevel, levelDim, NUM_LEVELS } from './codebook.ts';
import type { VectorEncoder } from './codebook-encoder.ts';
import { nearestCodes } from './nearest-search.ts';
import { sameProjector } from './projector.ts';
import { toSource, type VectorSource } from './vector-source.ts';
import { squaredDistance, type Vectors } from './vectors.ts';

/** Whether codes of the two can mean the same: one space, equal kinds and numbers of codes. */
export const canMatch = (before: Codebook, after: Codebook): boolean =>
  before.dim === after.dim &&
  sameProjector(before.projector, after.projector) &&
  after.numCodes.every((k, l) => k === before.numCodes[l]) &&
  after.levels.every((level, l) => level.kind === before.levels[l]!.kind);

/** Renumbers the k-means codes of `after`. FSQ codes keep their numbers: its training begins from the weights before. */
export function matchCodebook(before: Codebook, after: Codebook): Codebook {
  const levels = after.levels.map((level, l): CodebookLevel => {
    const old = before.levels[l]!;
    if (level.kind !== 'kmeans' || old.kind !== 'kmeans') return level;
    const dim = levelDim(after);
    const places = assign(squaredDistances(old.centroids, level.centroids, dim), level.numCodes);
    const centroids = new Float32Array(level.centroids.length);
    for (const [place, code] of places.entries())
      centroids.set(level.centroids.subarray(code * dim, (code + 1) * dim), place * dim);
    return { ...level, centroids };
  });
  return { ...after, levels };
}

/** Row i: from old centroid i to each new one. float64 [K, K] */
function squaredDistances(before: Float32Array, after: Float32Array, dim: number): Float64Array {
  const k = after.length / dim;
  const costs = new Float64Array(k * k);
  for (let i = 0; i < k; i++)
    for (let j = 0; j < k; j++) costs[i * k + j] = squaredDistance(before, i * dim, after, j * dim, dim);
  return costs;
}

/**
 * The cheapest one-to-one assignment (Kuhn 1955, Munkres 1957, with potentials and shortest augmenting paths as in Jonker
 * and Volgenant 1987): O(n^2) where nearly every row gets its cheapest column, O(n^3) at worst.
 * @param costs float64 [n, n], rows to columns
 * @returns int32 [n], the column of each row
 */
export function assign(costs: Float64Array, n: number): Int32Array {
  const rowPotential = new Float64Array(n + 1);
  const columnPotential = new Float64Array(n + 1);
  /** Row of each column, counting from 1; place 0 holds the row that looks for a column. */
  const rowOf = new Int32Array(n + 1);
  const cameFrom = new Int32Array(n + 1);
  for (let row = 1; row <= n; row++) {
    rowOf[0] = row;
    const least = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const done = new Uint8Array(n + 1);
    let column = 0;
    do {
      done[column] = 1;
      const from = rowOf[column]!;
      let delta = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let j = 1; j <= n; j++) {
        if (done[j]) continue;
        const reduced = costs[(from - 1) * n + j - 1]! - rowPotential[from]! - columnPotential[j]!;
        if (reduced < least[j]!) {
          least[j] = reduced;
          cameFrom[j] = column;
        }
        if (least[j]! < delta) {
          delta = least[j]!;
          next = j;
        }
      }
      for (let j = 0; j <= n; j++)
        if (done[j]) {
          rowPotential[rowOf[j]!]! += delta;
          columnPotential[j]! -= delta;
        } else least[j]! -= delta;
      column = next;
    } while (rowOf[column] !== 0);
    for (; column !== 0; column = cameFrom[column]!) rowOf[column] = rowOf[cameFrom[column]!]!;
  }
  const columns = new Int32Array(n);
  for (let j = 1; j <= n; j++) columns[rowOf[j]! - 1] = j - 1;
  return columns;
}

/** By level: per new code the code of the version before that it continues, or -1. */
export type CodeMatch = readonly [Int32Array, Int32Array, Int32Array];

/**
 * Which codes of a codebook continue those of the one before, after `matchCodebook`: a k-means code whose nearest old
 * centroid is the one of its own number; every code of an FSQ level that began from the weights before. No code does
 * where the two cannot match, and none of a last FSQ level whose first levels could not.
 */
export async function matchedCodes(before: Codebook, after: Codebook): Promise<CodeMatch> {
  const fits = canMatch(before, after);
  const levels = await Promise.all(
    after.levels.map(async (level, l) => {
      const match = new Int32Array(level.numCodes).fill(-1);
      const old = before.levels[l];
      if (!fits || !old) return match;
      if (level.kind !== 'kmeans' || old.kind !== 'kmeans') return match.map((_, code) => code);
      const data = level.centroids;
      const nearest = await nearestCodes(
        { data, numVectors: level.numCodes, dim: levelDim(after) },
        old.centroids,
      );
      return match.map((_, code) => (nearest[code] === code ? code : -1));
    }),
  );
  return levels as unknown as CodeMatch;
}

export interface MovedShares {
  /** Share of the items whose code of this level is another one. */
  byLevel: number[];
  /** Share of the items of which any code is. */
  any: number;
}

/** How many items change their codes from one version to the next. */
export async function movedShares(
  before: VectorEncoder,
  after: VectorEncoder,
  vectors: Vectors | VectorSource,
): Promise<MovedShares> {
  const moved = new Float64Array(NUM_LEVELS);
  let any = 0;
  let numVectors = 0;
  for await (const chunk of toSource(vectors).chunks()) {
    const [old, fresh] = [await before.encode(chunk), await after.encode(chunk)];
    for (let i = 0; i < old.length; i += NUM_LEVELS) {
      let differs = 0;
      for (let l = 0; l < NUM_LEVELS; l++)
        if (old[i + l] !== fresh[i + l]) {
          moved[l]!++;
          differs = 1;
        }
      any += differs;
    }
    numVectors += chunk.numVectors;
  }
  const share = (count: number): number => (numVectors > 0 ? count / numVectors : 0);
  return { byLevel: Array.from(moved, share), any: share(any) };
}
