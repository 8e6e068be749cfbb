import type { Bucket } from './stages/leave-one-out.ts';
import type { SequenceSet } from './stages/parse-sequences.ts';

/** Longest history that a model reads, in items, and the length of a packed row. */
export const LENGTH = 50;

/** Shapes in which histories are ranked. */
export const BUCKETS: readonly Bucket[] = [
  { length: 8, rows: 256 },
  { length: 16, rows: 128 },
  { length: LENGTH, rows: 32 },
];

/** Shapes of the beam search, in which each history has many rows. */
export const BEAM_BUCKETS: readonly Bucket[] = [
  { length: 8, rows: 32 },
  { length: 16, rows: 32 },
  { length: LENGTH, rows: 16 },
];

/** An epoch of a small set has about this many steps at least. */
const MIN_STEPS = 50;

/** Rows of a batch: those of the recipe, fewer where the set is small. */
export function rowsFor({ numInteractions }: SequenceSet, most: number): number {
  return Math.max(1, Math.min(most, Math.floor(numInteractions / LENGTH / MIN_STEPS)));
}
