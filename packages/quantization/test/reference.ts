/** Slow and obvious twins of the fast paths, and data to compare them on. */
import type { RandomSource, Vectors } from '../src/index.ts';

export function slowNearest(vectors: Vectors, centroids: Float32Array): { code: number; distance: number }[] {
  const { data, numVectors, dim } = vectors;
  return Array.from({ length: numVectors }, (_, i) => {
    let best = { code: -1, distance: Number.POSITIVE_INFINITY };
    for (let k = 0; k < centroids.length / dim; k++) {
      let distance = 0;
      for (let d = 0; d < dim; d++) distance += (data[i * dim + d]! - centroids[k * dim + d]!) ** 2;
      if (distance < best.distance) best = { code: k, distance };
    }
    return best;
  });
}

/** Mean of each code's vectors, summed one by one. */
export function slowMeans(vectors: Vectors, codes: Int32Array, numCodes: number): (number[] | null)[] {
  const { data, dim } = vectors;
  return Array.from({ length: numCodes }, (_, k) => {
    const members = [...codes.keys()].filter((i) => codes[i] === k);
    if (members.length === 0) return null;
    return Array.from(
      { length: dim },
      (_, d) => members.reduce((sum, i) => sum + data[i * dim + d]!, 0) / members.length,
    );
  });
}

export function slowConflict(codes: Int32Array): { conflict: number; exclusive: number } {
  const sids = Array.from({ length: codes.length / 3 }, (_, i) => codes.slice(i * 3, i * 3 + 3).join());
  const shared = sids.filter((sid) => sids.filter((other) => other === sid).length > 1).length;
  const used = new Set(sids);
  const single = [...used].filter((sid) => sids.filter((other) => other === sid).length === 1).length;
  return { conflict: shared / sids.length, exclusive: single / used.size };
}

/** Gaussian clusters around centres that are a unit apart in every dimension. */
export function clusters(
  random: RandomSource & { normal(): number },
  shape: { numVectors: number; dim: number; numClusters: number; spread: number },
): Vectors {
  const { numVectors, dim, numClusters, spread } = shape;
  const centres = Array.from({ length: numClusters }, () =>
    Array.from({ length: dim }, () => random.normal()),
  );
  const data = new Float32Array(numVectors * dim);
  for (let i = 0; i < numVectors; i++)
    for (let d = 0; d < dim; d++)
      data[i * dim + d] = centres[i % numClusters]![d]! + spread * random.normal();
  return { data, numVectors, dim };
}
