/**
 * What is due at an event time, earliest first, then by rank, then by tie. A task is a number: a slot and, in its last
 * three bits, what to do with it, which is its rank. Tasks far ahead lie in buckets of time unsorted; those of the
 * buckets that have begun are in a heap. A task takes 4 bytes, since its time and tie follow from its slot.
 */
import { bucketOf, TimeBuckets } from './time-buckets.ts';

export const TASK_BITS = 3;
const TASK_MASK = (1 << TASK_BITS) - 1;

export interface TaskTimes {
  atMs(task: number): number;
  /** What comes first among tasks of one time and rank. */
  tie(task: number): number;
}

export class DueTasks {
  readonly #times: TaskTimes;
  readonly #ahead = new TimeBuckets();
  /** Buckets up to this one are in the heap of tasks. */
  #begunBucket = Number.NEGATIVE_INFINITY;
  readonly #tasks: number[] = [];
  readonly #atMs: number[] = [];
  readonly #ties: number[] = [];
  readonly #pushTaken = (task: number): void => this.#push(task, this.#times.atMs(task));
  #size = 0;

  constructor(times: TaskTimes) {
    this.#times = times;
  }

  get size(): number {
    return this.#size;
  }
  /** Of the tasks that are far ahead. */
  get sizeBytes(): number {
    return this.#ahead.sizeBytes;
  }

  add(task: number, atMs: number): void {
    this.#size++;
    const bucket = bucketOf(atMs);
    if (bucket <= this.#begunBucket) this.#push(task, atMs);
    else this.#ahead.add(bucket, task);
  }

  /** When the next task is due if that is at most limitMs, else Infinity. */
  nextMs(limitMs: number): number {
    const ahead = this.#ahead;
    while (this.#tasks.length === 0 && !ahead.isEmpty && ahead.beginsMs <= limitMs)
      this.#begunBucket = ahead.take(this.#pushTaken);
    return this.#tasks.length > 0 && this.#atMs[0]! <= limitMs ? this.#atMs[0]! : Number.POSITIVE_INFINITY;
  }

  /** Takes the task that `nextMs` told of. */
  take(): number {
    const tasks = this.#tasks;
    const first = tasks[0]!;
    const task = tasks.pop()!;
    const atMs = this.#atMs.pop()!;
    const tie = this.#ties.pop()!;
    this.#size--;
    const length = tasks.length;
    if (length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (
        child + 1 < length &&
        this.#before(tasks[child + 1]!, this.#atMs[child + 1]!, this.#ties[child + 1]!, child)
      )
        child++;
      if (this.#before(task, atMs, tie, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#place(at, task, atMs, tie);
    return first;
  }

  #push(task: number, atMs: number): void {
    const tie = this.#times.tie(task);
    let at = this.#tasks.length;
    this.#place(at, task, atMs, tie);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(task, atMs, tie, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#place(at, task, atMs, tie);
  }

  #before(task: number, atMs: number, tie: number, other: number): boolean {
    if (atMs !== this.#atMs[other]) return atMs < this.#atMs[other]!;
    const rank = task & TASK_MASK;
    const otherRank = this.#tasks[other]! & TASK_MASK;
    if (rank !== otherRank) return rank < otherRank;
    return tie < this.#ties[other]!;
  }

  #place(at: number, task: number, atMs: number, tie: number): void {
    this.#tasks[at] = task;
    this.#atMs[at] = atMs;
    this.#ties[at] = tie;
  }
  #move(from: number, to: number): void {
    this.#place(to, this.#tasks[from]!, this.#atMs[from]!, this.#ties[from]!);
  }
}
