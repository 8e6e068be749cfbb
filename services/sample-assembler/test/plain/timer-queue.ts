/** What is due at an event time, earliest first: a binary heap ordered by (atMs, rank, tie), then by order of adding. */
export interface Timer<T> {
  atMs: number;
  /** Smaller comes first among equal times. */
  rank: number;
  tie: number;
  task: T;
}

interface Entry<T> extends Timer<T> {
  sequence: number;
}

export class TimerQueue<T> {
  readonly #heap: Entry<T>[] = [];
  #sequence = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** When the next timer is due; Infinity where there is none. */
  get nextMs(): number {
    return this.#heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  add(atMs: number, rank: number, tie: number, task: T): void {
    const heap = this.#heap;
    const entry: Entry<T> = { atMs, rank, tie, task, sequence: this.#sequence++ };
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  /** Takes the first timer with atMs <= nowMs, or undefined. */
  take(nowMs: number): Timer<T> | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.atMs > nowMs) return undefined;
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(last);
    return first;
  }

  #sink(entry: Entry<T>): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, entry)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = entry;
  }
}

function before<T>(a: Entry<T>, b: Entry<T>): boolean {
  if (a.atMs !== b.atMs) return a.atMs < b.atMs;
  if (a.rank !== b.rank) return a.rank < b.rank;
  if (a.tie !== b.tie) return a.tie < b.tie;
  return a.sequence < b.sequence;
}
