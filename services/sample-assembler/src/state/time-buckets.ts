/** Numbers by the second of event time that they belong to, in no order within it; 4 bytes each. */
import { NO_NUMBERS, NumberLists } from '../bytes/number-lists.ts';

/** Small enough for a heap of one's tasks, large enough that most are worth a list; and their numbers stay small integers. */
const BUCKET_MS = 1024;

export const bucketOf = (atMs: number): number => Math.floor(atMs / BUCKET_MS);

export class TimeBuckets {
  readonly #lists = new NumberLists();
  readonly #listOf = new Map<number, number>();
  /** A binary heap of bucket numbers. */
  readonly #order: number[] = [];

  get sizeBytes(): number {
    return this.#lists.sizeBytes;
  }
  get isEmpty(): boolean {
    return this.#order.length === 0;
  }
  /** When the first bucket begins, where there is one. */
  get beginsMs(): number {
    return this.#order[0]! * BUCKET_MS;
  }
  /** When it is over. */
  get endsMs(): number {
    return this.beginsMs + BUCKET_MS;
  }

  add(bucket: number, value: number): void {
    const known = this.#listOf.get(bucket);
    const list = this.#lists.add(known ?? NO_NUMBERS, value);
    if (list !== known) this.#listOf.set(bucket, list);
    if (known === undefined) pushNumber(this.#order, bucket);
  }

  /** Tells the numbers of the first bucket, which is no more then. @returns that bucket */
  take(tell: (value: number) => void): number {
    const bucket = this.#order[0]!;
    popNumber(this.#order);
    const list = this.#listOf.get(bucket)!;
    this.#listOf.delete(bucket);
    this.#lists.take(list, tell);
    return bucket;
  }
}

function pushNumber(heap: number[], value: number): void {
  let at = heap.length;
  heap.push(value);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (heap[parent]! <= value) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = value;
}

function popNumber(heap: number[]): void {
  const value = heap.pop()!;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
    if (value <= heap[child]!) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = value;
}
