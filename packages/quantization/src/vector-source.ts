/** Vectors that need not be in memory all at once. */
import { QuantizationError, type RandomSource, type Vectors } from './vectors.ts';

/** Gives the same vectors in the same order on each pass, some at a time. */
export interface VectorSource {
  dim: number;
  chunks(): Iterable<Vectors> | AsyncIterable<Vectors>;
}

export const isInMemory = (vectors: Vectors | VectorSource): vectors is Vectors => 'data' in vectors;
export const toSource = (vectors: Vectors | VectorSource): VectorSource =>
  isInMemory(vectors) ? { dim: vectors.dim, chunks: () => [vectors] } : vectors;

/** The vectors with each chunk replaced, as it is read, by one of vectors of `dim` numbers. */
export function mapSource(
  source: VectorSource,
  map: (chunk: Vectors) => Vectors | Promise<Vectors>,
  dim = source.dim,
): VectorSource {
  return {
    dim,
    async *chunks() {
      for await (const chunk of source.chunks()) yield await map(chunk);
    },
  };
}

/**
 * A uniform sample of at most `count` vectors and the number of all, in one pass (reservoir sampling: Vitter 1985,
 * algorithm R). All of them, in their order, where there are no more.
 * @throws QuantizationError for no vectors, a chunk of another length, or numbers that are not finite
 */
export async function sampleVectors(
  source: VectorSource,
  count: number,
  random: RandomSource,
): Promise<{ sample: Vectors; numVectors: number }> {
  const { dim } = source;
  let data = new Float32Array(Math.min(count, 1024) * dim);
  let seen = 0;
  for await (const chunk of source.chunks()) {
    if (chunk.dim !== dim)
      throw new QuantizationError(`Vectors of ${dim} numbers were announced, a chunk has ${chunk.dim}`);
    for (let i = 0; i < chunk.numVectors; i++, seen++) {
      const row = chunk.data.subarray(i * dim, (i + 1) * dim);
      for (let d = 0; d < dim; d++)
        if (!Number.isFinite(row[d]!))
          throw new QuantizationError(`Vector ${seen} holds ${row[d]} at place ${d}: leave such items out`);
      const place = seen < count ? seen : Math.floor(random.next() * (seen + 1));
      if (place >= count) continue;
      if ((place + 1) * dim > data.length) {
        const grown = new Float32Array(Math.min(count * dim, data.length * 2));
        grown.set(data);
        data = grown;
      }
      data.set(row, place * dim);
    }
  }
  if (seen === 0) throw new QuantizationError('A codebook needs at least one vector, got none');
  const kept = Math.min(seen, count);
  return { sample: { data: data.slice(0, kept * dim), numVectors: kept, dim }, numVectors: seen };
}
