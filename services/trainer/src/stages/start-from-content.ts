/**
 * A start from content: tables and heads of the first two levels begin as the codebooks' centroids, so that codes of like
 * content are alike before any of them was seen. Only initial values: everything is trained from there on.
 */
import { type SidLayout, sidLayout } from '@onemall/features';
import type { TrainerState } from '@onemall/learning';
import { type Codebook, levelDim } from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';

/** Length of a head's column. Small: the first guess is vague. */
const HEAD_LENGTH = 0.5;

/** A codebook, and whether its vectors m come from an item tower instead of the items' content. */
export interface StartingCodebook {
  codebook: Codebook;
  fromTower: boolean;
}

/**
 * Overwrites rows of `sid.level1`, `sid.level2`, `head.level1` and `head.level2` in the state. Scenarios whose m holds content
 * embeddings share a space, so that a video's code lies near that of the card it shows: the shortest m is one embedding, a
 * multiple of it several side by side, which are added up. Any other m, that of a tower, and what a projector makes of it
 * gets a space of its own.
 */
export function startFromContent(
  { tensors }: TrainerState,
  codebooks: readonly StartingCodebook[],
  { scenarios, numCodes }: Pick<SidLayout, 'scenarios' | 'numCodes'>,
  seed: number,
): void {
  const layout = sidLayout(scenarios, numCodes);
  const dim = tensors.get('sid.level1')!.length / layout.rows[0];
  const ofContent = ({ codebook, fromTower }: StartingCodebook): boolean =>
    !fromTower && codebook.projector === undefined;
  const contentDim = Math.min(...codebooks.filter(ofContent).map((c) => c.codebook.dim));
  for (const starting of codebooks) {
    const { codebook } = starting;
    const apart = !ofContent(starting) || codebook.dim % contentDim !== 0;
    const length = apart ? levelDim(codebook) : contentDim;
    const project = projection(length, dim, apart ? seed + 1 : seed);
    const offsets = layout.offsets.get(codebook.scenario)!;
    const centroids = [0, 1].flatMap((level) => {
      const of = codebook.levels[level]!;
      return of.kind === 'kmeans' ? [folded(of.centroids, levelDim(codebook), length)] : [];
    });
    const mean = meanRow(centroids[0]!, length);
    for (let at = 0; at < centroids[0]!.length; at++) centroids[0]![at]! -= mean[at % length]!;
    // one scale for both levels: a residual is as much shorter as it is
    const scale = inverse(meanLength(centroids[0]!, length));
    centroids.forEach((rows, level) => {
      const table = tensors.get(`sid.level${level + 1}`)!;
      const head = tensors.get(`head.level${level + 1}`)!;
      const columns = layout.rows[level]!;
      const headScale = HEAD_LENGTH * inverse(meanLength(rows, length));
      for (let code = 0; code < rows.length / length; code++) {
        const vector = project(rows.subarray(code * length, (code + 1) * length));
        const row = offsets[level]! + code;
        for (let d = 0; d < dim; d++) {
          table[row * dim + d] = vector[d]! * scale;
          head[d * columns + row] = vector[d]! * headScale;
        }
      }
    });
  }
}

/** To the model's dimension, lengths and angles kept as well as may be. */
function projection(from: number, to: number, seed: number): (vector: Float32Array) => Float32Array {
  if (from === to) return (vector) => vector;
  const random = new SeededRandom(seed);
  const matrix = Float32Array.from({ length: from * to }, () => random.normal() / Math.sqrt(to));
  return (vector) => {
    const out = new Float32Array(to);
    for (let t = 0; t < to; t++) for (let f = 0; f < from; f++) out[t]! += matrix[t * from + f]! * vector[f]!;
    return out;
  };
}

/** 0 for codebooks whose centroids are all alike: their rows then begin as zeros. */
const inverse = (length: number): number => (length > 0 ? 1 / length : 0);

function folded(rows: Float32Array, from: number, to: number): Float32Array {
  const out = new Float32Array((rows.length / from) * to);
  for (let at = 0; at < rows.length; at++) out[Math.floor(at / from) * to + ((at % from) % to)]! += rows[at]!;
  return out;
}

function meanRow(rows: Float32Array, dim: number): Float64Array {
  const mean = new Float64Array(dim);
  for (let at = 0; at < rows.length; at++) mean[at % dim]! += (rows[at]! * dim) / rows.length;
  return mean;
}

function meanLength(rows: Float32Array, dim: number): number {
  let sum = 0;
  for (let at = 0; at < rows.length; at += dim) sum += Math.hypot(...rows.subarray(at, at + dim));
  return (sum * dim) / rows.length;
}
