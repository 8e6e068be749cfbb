/** Leave-one-out: the last item of a user is the test, the one before it validates, everything earlier trains. */

import { sampleIndices, seededSource } from '@onemall/quantization';

export type Split = 'validation' | 'test';

export interface Question {
  /** Index into the sequences. */
  user: number;
  /** Everything before the target, oldest first. */
  history: Int32Array;
  target: number;
}

/** Users with fewer items are trained on, but not asked. */
export const MIN_ITEMS_TO_ASK = 3;

/** The part of each user's sequence that may be trained on. */
export function trainingSequences(sequences: readonly Int32Array[]): Int32Array[] {
  return sequences.map((s) => (s.length < MIN_ITEMS_TO_ASK ? s : s.subarray(0, s.length - 2)));
}

export function questions(sequences: readonly Int32Array[], split: Split): Question[] {
  const fromEnd = split === 'test' ? 1 : 2;
  return sequences.flatMap((sequence, user) => {
    if (sequence.length < MIN_ITEMS_TO_ASK) return [];
    const at = sequence.length - fromEnd;
    return [{ user, history: sequence.subarray(0, at), target: sequence[at]! }];
  });
}

/** Enough to pick an epoch or a weight: one standard error of R@10 is .004 at .1. */
const VALIDATION_USERS = 6000;

/** The same sample of the validation in every run; what is picked is picked by it. */
export function validationQuestions(sequences: readonly Int32Array[]): Question[] {
  const all = questions(sequences, 'validation');
  const random = seededSource(7);
  return Array.from(sampleIndices(all.length, VALIDATION_USERS, random), (i) => all[i]!);
}

/** Questions of like history length in batches, so that little is padded. Length and count fix the shape of a graph. */
export interface Bucket {
  length: number;
  rows: number;
}

/**
 * @param buckets by ascending length; a longer history keeps its newest items
 * @returns each question once, in batches of at most `rows`
 */
export function bucketed(
  all: readonly Question[],
  buckets: readonly Bucket[],
): { bucket: Bucket; questions: Question[] }[] {
  const byBucket = new Map<Bucket, Question[]>(buckets.map((b) => [b, []]));
  for (const question of all) {
    const bucket = buckets.find((b) => question.history.length <= b.length) ?? buckets.at(-1)!;
    byBucket.get(bucket)!.push(question);
  }
  return [...byBucket].flatMap(([bucket, list]) =>
    Array.from({ length: Math.ceil(list.length / bucket.rows) }, (_, i) => ({
      bucket,
      questions: list.slice(i * bucket.rows, (i + 1) * bucket.rows),
    })),
  );
}

/** Inputs of a batch of histories, left-aligned: items, positions, segments, int32 [rows, length]. */
export function historyFeeds(
  batch: readonly Question[],
  { rows, length }: Bucket,
): Record<string, Int32Array> {
  const ids = new Int32Array(rows * length);
  const positions = new Int32Array(rows * length);
  for (let row = 0; row < rows; row++) for (let i = 0; i < length; i++) positions[row * length + i] = i;
  batch.forEach(({ history }, row) => {
    ids.set(history.subarray(Math.max(0, history.length - length)), row * length);
  });
  return { items: ids, positions, segments: new Int32Array(rows * length) };
}

/** Place of the newest item of a history in its row. */
export const lastPlace = ({ history }: Question, { length }: Bucket): number =>
  Math.min(history.length, length) - 1;
