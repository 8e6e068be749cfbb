/**
 * A codebook turns a vector m into three codes: two levels of residual k-means (OneMall, equations 1 and 2) and a last
 * level that is either a third k-means ("vanilla") or FSQ on what the first two leave over.
 */
import { decodeFsq, encodeFsq, type FsqLevel, type FsqTraining, trainFsq } from './fsq.ts';
import { trainKmeans } from './kmeans.ts';
import { nearestCodes } from './nearest-code.ts';
import { QuantizationError, type RandomSource, requireFinite, type Vectors } from './vectors.ts';

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
  /** Nothing that happened later went into it. */
  cutoffMs: number;
}

export interface CodebookTraining {
  scenario: string;
  version: number;
  numCodes: readonly [number, number, number];
  lastLevel: 'kmeans' | 'fsq';
  cutoffMs: number;
  random: RandomSource;
  maxIterations?: number;
  fsq?: FsqTraining;
  /** Told after each level. */
  onLevel?: (level: number) => void;
}

/** @throws QuantizationError for vectors that no codebook can be trained from */
export function trainCodebook(vectors: Vectors, options: CodebookTraining): Codebook {
  requireFinite(vectors);
  const { numCodes, random, maxIterations } = options;
  const residual: Vectors = { ...vectors, data: vectors.data.slice() };
  const levels: CodebookLevel[] = [];
  for (const [l, k] of numCodes.entries()) {
    const last = l === NUM_LEVELS - 1;
    const level: CodebookLevel =
      last && options.lastLevel === 'fsq'
        ? trainFsq(residual, { numCodes: k, random, ...options.fsq })
        : {
            kind: 'kmeans',
            numCodes: k,
            centroids: trainKmeans(residual, {
              numCodes: k,
              random,
              ...(maxIterations !== undefined && { maxIterations }),
            }).centroids,
          };
    levels.push(level);
    if (!last) subtract(residual, level, encodeLevel(level, residual));
    options.onLevel?.(l + 1);
  }
  return {
    scenario: options.scenario,
    version: options.version,
    numCodes,
    dim: vectors.dim,
    levels,
    cutoffMs: options.cutoffMs,
  };
}

/**
 * Codes of each vector: int32 [N, 3].
 * @throws QuantizationError if the vectors' length is not the codebook's, or a number is not finite
 */
export function encode(codebook: Codebook, vectors: Vectors): Int32Array {
  return encodeWithResidual(codebook, vectors).codes;
}

/** Codes [N, 3] and, per level, the mean squared length of what is left after it, as a share of that of the vectors. */
export function encodeWithResidual(
  codebook: Codebook,
  vectors: Vectors,
): { codes: Int32Array; relativeErrors: number[] } {
  if (vectors.dim !== codebook.dim)
    throw new QuantizationError(
      `Codebook ${codebook.version} of ${codebook.scenario} takes vectors of ${codebook.dim} numbers, got ${vectors.dim}`,
    );
  requireFinite(vectors);
  const residual: Vectors = { ...vectors, data: vectors.data.slice() };
  const codes = new Int32Array(vectors.numVectors * NUM_LEVELS);
  const whole = sumOfSquares(vectors.data);
  const relativeErrors: number[] = [];
  for (const [l, level] of codebook.levels.entries()) {
    const ofLevel = encodeLevel(level, residual);
    for (let i = 0; i < ofLevel.length; i++) codes[i * NUM_LEVELS + l] = ofLevel[i]!;
    subtract(residual, level, ofLevel);
    relativeErrors.push(whole > 0 ? sumOfSquares(residual.data) / whole : 0);
  }
  return { codes, relativeErrors };
}

const encodeLevel = (level: CodebookLevel, vectors: Vectors): Int32Array =>
  level.kind === 'kmeans' ? nearestCodes(vectors, level.centroids) : encodeFsq(level, vectors);

function subtract(residual: Vectors, level: CodebookLevel, codes: Int32Array): void {
  const { data, dim } = residual;
  const reconstruction = level.kind === 'fsq' ? decodeFsq(level, codes, dim) : undefined;
  for (let i = 0; i < codes.length; i++) {
    const from = level.kind === 'kmeans' ? level.centroids : reconstruction!;
    let at = (level.kind === 'kmeans' ? codes[i]! : i) * dim;
    for (let d = i * dim; d < (i + 1) * dim; d++) data[d]! -= from[at++]!;
  }
}

function sumOfSquares(data: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum += data[i]! * data[i]!;
  return sum;
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
