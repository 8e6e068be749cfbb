/** Times that are only known to the day (or hour, ...): the rows of one span are spread over it in the order of the file. */
import { type Resolution, UNIT_MS } from '../mapping.ts';

/** Counts the rows of each span first, then gives each row its time. */
export class TimeSpreader {
  readonly #spanMs: number;
  readonly #rows = new Map<number, number>();
  readonly #given = new Map<number, number>();

  constructor(resolution: Resolution) {
    this.#spanMs = UNIT_MS[resolution];
  }

  #start(timeMs: number): number {
    return Math.floor(timeMs / this.#spanMs) * this.#spanMs;
  }

  count(timeMs: number): void {
    const start = this.#start(timeMs);
    this.#rows.set(start, (this.#rows.get(start) ?? 0) + 1);
  }

  /** Row k of n lies at (k + 1/2) / n of the span. Call in the order of the file, once per counted row. */
  spread(timeMs: number): number {
    const start = this.#start(timeMs);
    const k = this.#given.get(start) ?? 0;
    this.#given.set(start, k + 1);
    return start + Math.floor(((k + 0.5) / (this.#rows.get(start) ?? 1)) * this.#spanMs);
  }
}
