/**
 * A codebook turns a vector m into three codes: two levels of residual k-means (OneMall, equations 1 and 2) and a last
 * level that is either a third k-means ("vanilla") or FSQ on what the first two leave over.
 */
import { type FsqLevel, type FsqTraining, trainFsq } from './fsq.ts';
import { type KmeansState, trainKmeans } from './kmeans.ts';
import { NearestSearch } from './nearest-search.ts';
import { type Projector, ProjectorRunner } from './projector.ts';
import { isInMemory, mapSource, sampleVectors, toSource, type VectorSource } from './vector-source.ts';
import { seededSource, type Vectors } from './vectors.ts';

export const NUM_LEVELS = 3;

export interface KmeansLevel {
  kind: 'kmeans';
  numCodes: number;
  /** float32 [K, dim] */
  centroids: Float32Array;
}
export type CodebookLevel = KmeansLevel | FsqLevel;

export interface Codebook {
  scenario: string;
  /** Counts up from 1 per scenario. */
  version: number;
  /** Codes per level. */
  numCodes: readonly [number, number, number];
  /** Length of m. */
  dim: number;
  levels: readonly CodebookLevel[];
  /** Stands before the first level, which quantizes m itself where there is none. */
  projector?: Projector;
  /** Nothing that happened later went into it. */
  cutoffMs: number;
  /** Encoder of the texts that its vectors are from; absent for hashed n-grams and for items with embeddings of their own. */
  textEncoder?: string;
}

/** Length of the vectors that the levels quantize. */
export const levelDim = ({ dim, projector }: Pick<Codebook, 'dim' | 'projector'>): number =>
  projector?.outDim ?? dim;

export interface CodebookTraining {
  scenario: string;
  version: number;
  numCodes: readonly [number, number, number];
  lastLevel: 'kmeans' | 'fsq';
  cutoffMs: number;
  seed: number;
  textEncoder?: string;
  /** Projects the vectors before the first level, and becomes part of the codebook. */
  projector?: Projector;
  maxIterations?: number;
  tolerance?: number;
  maxVectorsPerCode?: number;
  fsq?: FsqTraining;
  numThreads?: number;
  /** Begins from the levels of an older version instead of drawn starts; its levels must fit. */
  start?: Codebook;
  /** Goes on from here and ends with the same codebook as a training that was never stopped. */
  resume?: TrainingState;
  /** Told after each iteration of k-means and after each level. */
  onState?: (state: TrainingState) => void | Promise<void>;
}

/** How far a training is: levels that are done, and k-means of the next one where it has begun. */
export interface TrainingState {
  levels: readonly CodebookLevel[];
  kmeans: KmeansState | null;
}

const FSQ_VECTORS = 20_000;

/**
 * Vectors in memory are sampled down where there are very many per code; those of a source are read in whole, once per
 * iteration, with nothing kept but sums and a sample.
 * @throws QuantizationError for vectors that no codebook can be trained from
 */
export async function trainCodebook(
  vectors: Vectors | VectorSource,
  options: CodebookTraining,
): Promise<Codebook> {
  const { projector, numThreads = 1 } = options;
  if (!projector) return trainLevels(vectors, options);
  const runner = await ProjectorRunner.open(projector, numThreads);
  try {
    const project = (chunk: Vectors): Promise<Vectors> => runner.project(chunk);
    const projected = isInMemory(vectors)
      ? await project(vectors)
      : mapSource(vectors, project, projector.outDim);
    return { ...(await trainLevels(projected, options)), dim: projector.inDim, projector };
  } finally {
    await runner.close();
  }
}

async function trainLevels(vectors: Vectors | VectorSource, options: CodebookTraining): Promise<Codebook> {
  const { numCodes, numThreads = 1, resume, onState } = options;
  const levels: CodebookLevel[] = [];
  let rest = vectors;
  for (const [l, k] of numCodes.entries()) {
    // Each level has random numbers of its own, so that a resumed training draws the same ones.
    const random = seededSource(options.seed * NUM_LEVELS + l);
    const done = resume?.levels[l];
    const level = done ?? (await trainLevel(l, k));
    levels.push(level);
    if (!done) await onState?.({ levels: [...levels], kmeans: null });
    if (level.kind === 'kmeans' && l < NUM_LEVELS - 1) rest = await residualOf(rest, level, numThreads);

    async function trainLevel(at: number, count: number): Promise<CodebookLevel> {
      if (at === NUM_LEVELS - 1 && options.lastLevel === 'fsq') {
        const { sample } = await sampleVectors(
          toSource(rest),
          options.fsq?.maxVectors ?? FSQ_VECTORS,
          random,
        );
        const start = options.start?.levels[at];
        return trainFsq(sample, {
          numCodes: count,
          random,
          ...options.fsq,
          ...(start?.kind === 'fsq' && { start, hidden: start.hidden }),
        });
      }
      const from = (resume?.levels.length === at ? resume.kmeans : null) ?? begin(options.start?.levels[at]);
      const { centroids } = await trainKmeans(rest, {
        numCodes: count,
        random,
        numThreads,
        ...(options.maxIterations !== undefined && { maxIterations: options.maxIterations }),
        ...(options.tolerance !== undefined && { tolerance: options.tolerance }),
        ...(options.maxVectorsPerCode !== undefined && { maxVectorsPerCode: options.maxVectorsPerCode }),
        ...(from && { from }),
        ...(onState && { onIteration: (kmeans) => onState({ levels: [...levels], kmeans }) }),
      });
      return { kind: 'kmeans', numCodes: count, centroids };
    }
  }
  return {
    scenario: options.scenario,
    version: options.version,
    numCodes,
    dim: vectors.dim,
    levels,
    cutoffMs: options.cutoffMs,
    ...(options.textEncoder !== undefined && { textEncoder: options.textEncoder }),
  };
}

const begin = (level: CodebookLevel | undefined): KmeansState | null =>
  level?.kind === 'kmeans'
    ? {
        centroids: level.centroids,
        iterations: 0,
        meanSquaredError: Number.POSITIVE_INFINITY,
        reseeded: 0,
        converged: false,
      }
    : null;

/** What a k-means level leaves over: computed at once for vectors in memory, on each pass for a source. */
async function residualOf(
  vectors: Vectors | VectorSource,
  { centroids }: KmeansLevel,
  numThreads: number,
): Promise<Vectors | VectorSource> {
  const { dim } = vectors;
  const subtract = async (search: NearestSearch, chunk: Vectors): Promise<Vectors> => {
    const codes = await search.search(chunk);
    const data = new Float32Array(chunk.data.length);
    for (let i = 0, at = 0; i < chunk.numVectors; i++)
      for (let d = 0, from = codes[i]! * dim; d < dim; d++, at++, from++)
        data[at] = chunk.data[at]! - centroids[from]!;
    return { ...chunk, data };
  };
  const withSearch = async <T>(use: (search: NearestSearch) => Promise<T>): Promise<T> => {
    const search = await NearestSearch.open(centroids, dim, numThreads);
    return use(search).finally(() => search.close());
  };
  if (isInMemory(vectors)) return withSearch((search) => subtract(search, vectors));
  return {
    dim,
    async *chunks() {
      const search = await NearestSearch.open(centroids, dim, numThreads);
      try {
        yield* mapSource(vectors, (chunk) => subtract(search, chunk)).chunks();
      } finally {
        await search.close();
      }
    },
  };
}

export const MIN_CODES = 16;
export const MAX_CODES = 4096;

/**
 * K of a k-means level for a catalogue of N items: the largest power of two <= N / 40, from 16 to 4096. Below 640
 * items 16 is therefore more than N / 40, and below 16 different vectors some codes stay unused.
 */
export function codesPerLevel(numItems: number): number {
  const k = 2 ** Math.floor(Math.log2(Math.max(1, numItems / 40)));
  return Math.min(MAX_CODES, Math.max(MIN_CODES, k));
}

/**
 * Codes of the three levels. The k-means levels follow `codesPerLevel`; an FSQ level has the bits that make
 * K1 K2 2^bits at least 100 N, from 4 to 12.
 */
export function codesForCatalogue(
  numItems: number,
  lastLevel: 'kmeans' | 'fsq',
): readonly [number, number, number] {
  const k = codesPerLevel(numItems);
  if (lastLevel === 'kmeans') return [k, k, k];
  const bits = Math.ceil(Math.log2(Math.max(1, (100 * numItems) / (k * k))));
  return [k, k, 2 ** Math.min(12, Math.max(4, bits))];
}
