/**
 * Where a replay of one input must begin so that it sees every record that still matters. A mark every 64 records is
 * exact enough: replaying a few too many is harmless.
 */
const RECORDS_PER_MARK = 64;

/** Marks as JSON has them: null for minus infinity. */
export interface SavedMarks {
  offsets: number[];
  neededBeforeMs: (number | null)[];
  neededMs: number | null;
  count: number;
}
const orNull = (ms: number): number | null => (ms === Number.NEGATIVE_INFINITY ? null : ms);

export class ReplayMarks {
  readonly #offsets: number[] = [];
  /** For each mark, the latest watermark at which some record before it is still needed. */
  readonly #neededBeforeMs: number[] = [];
  #neededMs = Number.NEGATIVE_INFINITY;
  #count = 0;
  readonly #recordsPerMark: number;

  constructor(recordsPerMark = RECORDS_PER_MARK) {
    this.#recordsPerMark = recordsPerMark;
  }

  /** For a snapshot. */
  save(): SavedMarks {
    return {
      offsets: [...this.#offsets],
      neededBeforeMs: this.#neededBeforeMs.map(orNull),
      neededMs: orNull(this.#neededMs),
      count: this.#count,
    };
  }
  load({ offsets, neededBeforeMs, neededMs, count }: SavedMarks): void {
    // One by one: as arguments of one call, as many as millions of open exposures have would overflow the stack.
    this.#offsets.length = 0;
    this.#neededBeforeMs.length = 0;
    for (const offset of offsets) this.#offsets.push(offset);
    for (const ms of neededBeforeMs) this.#neededBeforeMs.push(ms ?? Number.NEGATIVE_INFINITY);
    this.#neededMs = neededMs ?? Number.NEGATIVE_INFINITY;
    this.#count = count;
  }

  /** The record at this offset is needed while the watermark is below neededUntilMs. */
  see(offset: number, neededUntilMs: number): void {
    if (this.#count++ % this.#recordsPerMark === 0) {
      this.#offsets.push(offset);
      this.#neededBeforeMs.push(this.#neededMs);
    }
    if (neededUntilMs > this.#neededMs) this.#neededMs = neededUntilMs;
  }

  /** The first offset a replay at this watermark needs; nextOffset where nothing read so far is needed. */
  restoreOffset(watermarkMs: number, nextOffset: number): number {
    if (this.#neededMs <= watermarkMs) return nextOffset;
    let passed = 0;
    while (passed + 1 < this.#offsets.length && this.#neededBeforeMs[passed + 1]! <= watermarkMs) passed++;
    if (passed > 0) {
      this.#offsets.splice(0, passed);
      this.#neededBeforeMs.splice(0, passed);
    }
    return this.#offsets[0] ?? nextOffset;
  }
}
