/**
 * A start from content: tables and heads of the first two levels begin as the codebooks' centroids, so that codes of like
 * content are alike before any of them was seen. Only initial values: everything is trained from there on.
 */
import { type SidLayout, sidLayout } from '@onemall/features';
import type { TrainerState } from '@onemall/learning';
import type { Codebook } from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';

/** Length of a head's column. Small: the first guess is vague. */
const HEAD_LENGTH = 0.5;

/**
 * Overwrites rows of `sid.level1`, `sid.level2`, `head.level1` and `head.level2` in the state.
 * @param contentDim length of an item's content embedding; a longer m holds several side by side, which are added up
 */
export function startFromContent(
  { tensors }: TrainerState,
  codebooks: readonly Codebook[],
  { scenarios, numCodes }: Pick<SidLayout, 'scenarios' | 'numCodes'>,
  contentDim: number,
  seed: number,
): void {
  const layout = sidLayout(scenarios, numCodes);
  const dim = tensors.get('sid.level1')!.length / layout.rows[0];
  const project = projection(contentDim, dim, seed);
  for (const codebook of codebooks) {
    const offsets = layout.offsets.get(codebook.scenario)!;
    const centroids = [0, 1].flatMap((level) => {
      const of = codebook.levels[level]!;
      return of.kind === 'kmeans' ? [folded(of.centroids, codebook.dim, contentDim)] : [];
    });
    const mean = meanRow(centroids[0]!, contentDim);
    for (let at = 0; at < centroids[0]!.length; at++) centroids[0]![at]! -= mean[at % contentDim]!;
    // one scale for both levels: a residual is as much shorter as it is
    const scale = 1 / meanLength(centroids[0]!, contentDim);
    centroids.forEach((rows, level) => {
      const table = tensors.get(`sid.level${level + 1}`)!;
      const head = tensors.get(`head.level${level + 1}`)!;
      const columns = layout.rows[level]!;
      const headScale = HEAD_LENGTH / meanLength(rows, contentDim);
      for (let code = 0; code < rows.length / contentDim; code++) {
        const vector = project(rows.subarray(code * contentDim, (code + 1) * contentDim));
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

function folded(rows: Float32Array, length: number, contentDim: number): Float32Array {
  const out = new Float32Array((rows.length / length) * contentDim);
  for (let at = 0; at < rows.length; at++)
    out[Math.floor(at / length) * contentDim + ((at % length) % contentDim)]! += rows[at]!;
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
