/**
 * How well a codebook tells a catalogue's items apart. Definitions (the paper's table 5 gives none):
 * conflict = share of items whose SID another item has too; exclusive = share of used SIDs that exactly one item has.
 */
import { NUM_LEVELS } from './codebook.ts';
import type { VectorEncoder } from './codebook-encoder.ts';
import { toSource, type VectorSource } from './vector-source.ts';
import type { Vectors } from './vectors.ts';

export interface SidMetrics {
  numItems: number;
  conflict: number;
  exclusive: number;
  /** Per level: share of its codes that any item has. */
  usage: number[];
  /** Per level: entropy of its codes over the items, in bits; at most log2 of its number of codes. */
  entropyBits: number[];
}

/** @param codes int32 [N, 3] */
export function measureSids(codes: Int32Array, numCodes: readonly number[]): SidMetrics {
  const numItems = codes.length / NUM_LEVELS;
  const perSid = new Map<number, number>();
  const perLevel = numCodes.map((k) => new Int32Array(k));
  for (let i = 0; i < codes.length; i += NUM_LEVELS) {
    // At most 4096^3 = 2^36 SIDs: exact in a double.
    const sid = (codes[i]! * numCodes[1]! + codes[i + 1]!) * numCodes[2]! + codes[i + 2]!;
    perSid.set(sid, (perSid.get(sid) ?? 0) + 1);
    for (const [l, counts] of perLevel.entries()) counts[codes[i + l]!]!++;
  }
  let shared = 0;
  let single = 0;
  for (const count of perSid.values()) {
    if (count === 1) single++;
    else shared += count;
  }
  return {
    numItems,
    conflict: numItems > 0 ? shared / numItems : 0,
    exclusive: perSid.size > 0 ? single / perSid.size : 0,
    usage: perLevel.map((counts) => counts.filter((c) => c > 0).length / counts.length),
    entropyBits: perLevel.map((counts) => entropyBits(counts, numItems)),
  };
}

function entropyBits(counts: Int32Array, total: number): number {
  let bits = 0;
  for (const count of counts) if (count > 0) bits -= (count / total) * Math.log2(count / total);
  return bits;
}

export interface CodebookMetrics extends SidMetrics {
  /** Per level: mean squared length of what is left after it, as a share of that of the vectors. */
  relativeErrors: number[];
  /** Share of items whose vector another item has too: no codebook can have less conflict. */
  duplicateShare: number;
}

/** Metrics of a codebook over a catalogue's vectors. */
export async function measureCodebook(
  encoder: VectorEncoder,
  vectors: Vectors | VectorSource,
): Promise<CodebookMetrics> {
  const { codes, relativeErrors } = await encoder.encodeWithErrors(vectors);
  return {
    ...measureSids(codes, encoder.codebook.numCodes),
    relativeErrors,
    duplicateShare: await shareOfDuplicates(toSource(vectors)),
  };
}

async function shareOfDuplicates(source: VectorSource): Promise<number> {
  const rows = new Map<number, number>();
  let numVectors = 0;
  for await (const { data, dim } of source.chunks()) {
    const bits = new Int32Array(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < bits.length; at += dim, numVectors++) {
      const key = hash53(bits, at, dim);
      rows.set(key, (rows.get(key) ?? 0) + 1);
    }
  }
  let shared = 0;
  for (const count of rows.values()) if (count > 1) shared += count;
  return numVectors > 0 ? shared / numVectors : 0;
}

/** Two multiplicative hashes side by side; a million different rows meet with a chance below 1 in 10,000. */
function hash53(words: Int32Array, at: number, count: number): number {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let i = at; i < at + count; i++) {
    a = Math.imul(a ^ words[i]!, 0x01000193);
    a ^= a >>> 15;
    b = Math.imul(b ^ words[i]!, 0x85ebca6b);
    b ^= b >>> 13;
  }
  return (a >>> 0) * 2 ** 21 + (b >>> 11);
}

/** The metrics as named numbers for records and dashboards: usage1, entropyBits2, relativeError3 count levels from 1. */
export function namedMetrics(metrics: CodebookMetrics | SidMetrics): Record<string, number> {
  const named: Record<string, number> = {
    numItems: metrics.numItems,
    conflict: metrics.conflict,
    exclusive: metrics.exclusive,
  };
  for (const [l, usage] of metrics.usage.entries()) named[`usage${l + 1}`] = usage;
  for (const [l, bits] of metrics.entropyBits.entries()) named[`entropyBits${l + 1}`] = bits;
  if ('relativeErrors' in metrics) {
    named.duplicateShare = metrics.duplicateShare;
    for (const [l, error] of metrics.relativeErrors.entries()) named[`relativeError${l + 1}`] = error;
  }
  return named;
}

export interface CodebookLimits {
  /** Conflict beyond what equal vectors make unavoidable. */
  maxExcessConflict: number;
  /** Share of first-level codes in use. */
  minUsage: number;
  /** What is left of the vectors after all levels. */
  maxRelativeError: number;
}

/** The defaults of the job that trains the next version, by which a first one is measured. */
export const USUAL_LIMITS: CodebookLimits = { maxExcessConflict: 0.5, minUsage: 0.5, maxRelativeError: 0.9 };

/** One sentence per limit that the metrics break; empty when the codebook may be published. */
export function brokenLimits(metrics: CodebookMetrics, limits: CodebookLimits): string[] {
  const broken: string[] = [];
  const excess = metrics.conflict - metrics.duplicateShare;
  if (excess > limits.maxExcessConflict)
    broken.push(
      `conflict is ${metrics.conflict.toFixed(3)}, of which equal vectors explain ${metrics.duplicateShare.toFixed(3)}; at most ${limits.maxExcessConflict} more is allowed`,
    );
  if (metrics.usage[0]! < limits.minUsage)
    broken.push(
      `${metrics.usage[0]!.toFixed(3)} of the first level's codes are used; at least ${limits.minUsage} is asked for`,
    );
  const error = metrics.relativeErrors.at(-1)!;
  if (!(error <= limits.maxRelativeError))
    broken.push(
      `the reconstruction error is ${error.toFixed(3)} of the vectors' size; at most ${limits.maxRelativeError} is allowed`,
    );
  return broken;
}
