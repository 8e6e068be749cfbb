/** What a teacher would recommend at each place of the training sequences, as items and cumulative probabilities. */
import type { RandomSource } from '@onemall/quantization';

export interface Teacher {
  /** Items kept per place. */
  top: number;
  /** Of the place p of sequence u: index begin[u] + p. */
  begin: Int32Array;
  /** int32 [places, top], best first, and the cumulative probabilities over all items. */
  items: Int32Array;
  cumulative: Float32Array;
}

/** An empty teacher for sequences; `teach` fills it. */
export function emptyTeacher(sequences: readonly Int32Array[], top: number): Teacher {
  const begin = new Int32Array(sequences.length + 1);
  sequences.forEach((s, u) => {
    begin[u + 1] = begin[u]! + s.length;
  });
  const places = begin.at(-1)!;
  return {
    top,
    begin,
    items: new Int32Array(places * top),
    cumulative: new Float32Array(places * top).fill(1),
  };
}

/** Enters the probabilities of all items for one place. @param probabilities of item i + 1 at from + i */
export function teach(
  teacher: Teacher,
  place: number,
  probabilities: Float32Array,
  from: number,
  numItems: number,
): void {
  const at = place * teacher.top;
  let sum = 0;
  topIndices(probabilities, from, numItems, teacher.top).forEach((index, k) => {
    sum += probabilities[from + index]!;
    teacher.items[at + k] = index + 1;
    teacher.cumulative[at + k] = sum;
  });
}

/** Draws an item: one of the best by its probability, the last of them where the draw falls behind all. */
export function drawTarget(teacher: Teacher, place: number, random: RandomSource): number {
  const at = place * teacher.top;
  const draw = random.next();
  let k = 0;
  while (k < teacher.top - 1 && teacher.cumulative[at + k]! < draw) k++;
  return teacher.items[at + k]!;
}

/** Indices (from `from`) of the `count` greatest of n, greatest first; of equal ones the lower index. */
export function topIndices(values: Float32Array, from: number, n: number, count: number): number[] {
  const best: number[] = [];
  let least = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; i++) {
    const value = values[from + i]!;
    if (best.length === count && value <= least) continue;
    let k = best.length;
    while (k > 0 && values[from + best[k - 1]!]! < value) k--;
    best.splice(k, 0, i);
    if (best.length > count) best.pop();
    least = values[from + best.at(-1)!]!;
  }
  return best;
}
