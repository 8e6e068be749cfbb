/** Packs training sequences into rows of one length, several users to a row: one static shape and next to no padding. */
import type { RandomSource } from '@onemall/quantization';

export interface PackedBatch {
  /** int32 [rows x length]: the history element at each place, its place in the sequence, and whose it is (-1 padding). */
  items: Int32Array;
  positions: Int32Array;
  segments: Int32Array;
  /** int32 [rows x length]: the item that came next, 0 where padded. */
  targets: Int32Array;
  /** float32 [rows x length]: 1 / number of targets, 0 where padded. */
  weights: Float32Array;
  /** int32 [rows x length]: index of the target in its training sequence, and the sequence's index. */
  targetPlaces: Int32Array;
  users: Int32Array;
  numTargets: number;
}

export interface PackedShape {
  rows: number;
  length: number;
}

/** Sequences that fit no row wait for the next batch; with more than this many waiting the batch is full. */
const MAX_WAITING = 64;

/**
 * One epoch: each sequence of two items or more once, in random order; a longer one with its newest length + 1 items.
 * @param positions all: every position is a target; last: only the newest
 */
export function packEpoch(
  sequences: readonly Int32Array[],
  shape: PackedShape,
  random: RandomSource,
  positions: 'all' | 'last' = 'all',
): PackedBatch[] {
  const order = Int32Array.from(sequences.keys()).filter((i) => sequences[i]!.length >= 2);
  shuffle(order, random);
  const batches: PackedBatch[] = [];
  let waiting: number[] = [];
  let next = 0;
  while (next < order.length || waiting.length > 0) {
    const batch = new OpenBatch(sequences, shape, positions);
    waiting = waiting.filter((user) => !batch.place(user));
    for (; next < order.length && waiting.length <= MAX_WAITING; next++)
      if (!batch.place(order[next]!)) waiting.push(order[next]!);
    batches.push(batch.close());
  }
  return batches;
}

class OpenBatch {
  readonly #batch: PackedBatch;
  readonly #sequences: readonly Int32Array[];
  readonly #shape: PackedShape;
  readonly #positions: 'all' | 'last';
  readonly #used: Int32Array;
  readonly #parts: Int32Array;

  constructor(sequences: readonly Int32Array[], shape: PackedShape, positions: 'all' | 'last') {
    const size = shape.rows * shape.length;
    this.#sequences = sequences;
    this.#shape = shape;
    this.#positions = positions;
    this.#used = new Int32Array(shape.rows);
    this.#parts = new Int32Array(shape.rows);
    this.#batch = {
      items: new Int32Array(size),
      positions: new Int32Array(size),
      segments: new Int32Array(size).fill(-1),
      targets: new Int32Array(size),
      weights: new Float32Array(size),
      targetPlaces: new Int32Array(size),
      users: new Int32Array(size).fill(-1),
      numTargets: 0,
    };
  }

  /** @returns false when no row has room */
  place(user: number): boolean {
    const sequence = this.#sequences[user]!;
    const { length } = this.#shape;
    const count = Math.min(sequence.length - 1, length);
    const row = this.#used.findIndex((used) => used + count <= length);
    if (row < 0) return false;
    const batch = this.#batch;
    const begin = row * length + this.#used[row]!;
    const first = sequence.length - 1 - count;
    const part = this.#parts[row]!++;
    for (let i = 0; i < count; i++) {
      batch.items[begin + i] = sequence[first + i]!;
      batch.positions[begin + i] = i;
      batch.segments[begin + i] = part;
      batch.targets[begin + i] = sequence[first + i + 1]!;
      batch.targetPlaces[begin + i] = first + i + 1;
      batch.users[begin + i] = user;
      if (this.#positions === 'all' || i === count - 1) {
        batch.weights[begin + i] = 1;
        batch.numTargets++;
      }
    }
    this.#used[row]! += count;
    return true;
  }

  close(): PackedBatch {
    const { weights, numTargets } = this.#batch;
    for (let i = 0; i < weights.length; i++) weights[i]! /= numTargets;
    return this.#batch;
  }
}

/** Fisher and Yates. */
function shuffle(order: Int32Array, random: RandomSource): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random.next() * (i + 1));
    const swap = order[i]!;
    order[i] = order[j]!;
    order[j] = swap;
  }
}
