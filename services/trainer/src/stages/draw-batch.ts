/**
 * Batches drawn from the partitions of the log by a fixed round-robin.
 *
 * One sample is taken from each partition in turn. A partition that has been read to its known end is passed over; one
 * that merely has not been fetched yet is waited for. So on a log that does not grow the batches are a pure function of
 * the offsets, however fetches arrive. On a live log "at its end" depends on the moment, which is why each batch's
 * offset ranges are written to a manifest before the step, and `drawRange` gives the same batch again from it.
 *
 * Inside a batch samples stand by partition, then offset: the sum of a loss depends on its order in the last bits.
 */

/** Offsets [from, to) of one partition; samples that were left out lie inside too. */
export interface OffsetRange {
  partition: number;
  from: number;
  to: number;
}

export interface Drawn<S> {
  samples: S[];
  /** One per partition, ascending; from = to where the partition gave nothing. */
  ranges: OffsetRange[];
  /** Index of the partition whose turn is next. */
  cursor: number;
}

interface Placed<S> {
  offset: number;
  sample: S;
}

interface Queue<S> {
  partition: number;
  /** Selected samples in offset order, not yet drawn. */
  waiting: Placed<S>[];
  /** Everything below this offset is in some drawn batch, or was left out. */
  from: number;
  /** Offset after the last record fetched; undefined before the first answer. */
  readTo: number | undefined;
  /** The partition's end as of the newest fetch. */
  end: number;
}

export class BatchDrawer<S> {
  readonly #batchSize: number;
  readonly #queues: Queue<S>[];
  #open: { queue: Queue<S>; placed: Placed<S> }[] = [];
  #cursor: number;

  /**
   * @param positions offset of the next record and known end per partition, ascending by partition
   * @param cursor index of the partition whose turn is first
   */
  constructor(
    batchSize: number,
    positions: readonly { partition: number; offset: number; end: number }[],
    cursor = 0,
  ) {
    this.#batchSize = batchSize;
    this.#cursor = cursor % Math.max(1, positions.length);
    this.#queues = positions.map(({ partition, offset, end }) => ({
      partition,
      waiting: [],
      from: offset,
      readTo: undefined,
      end,
    }));
  }

  /**
   * Adds what one fetch of a partition gave.
   * @param selected samples to train on, ascending by offset, none seen before
   * @param readTo offset after the last fetched record, control batches and left-out records included
   * @param end the partition's end when the fetch was answered
   */
  add(partition: number, selected: readonly Placed<S>[], readTo: number, end: number): void {
    const queue = this.#queue(partition);
    if (readTo < (queue.readTo ?? queue.from))
      throw new Error(
        `Partition ${partition} was read to ${readTo} after ${queue.readTo ?? queue.from}: a fetch went backwards`,
      );
    for (const placed of selected) queue.waiting.push(placed);
    queue.readTo = readTo;
    queue.end = end;
  }

  /** Samples fetched and not yet in a closed batch. */
  get buffered(): number {
    return this.#open.length + this.#queues.reduce((sum, q) => sum + q.waiting.length, 0);
  }
  bufferedOf(partition: number): number {
    return this.#queue(partition).waiting.length;
  }
  /** Offset after the last record fetched. */
  readTo(partition: number): number {
    const queue = this.#queue(partition);
    return queue.readTo ?? queue.from;
  }
  /** Samples already drawn for the batch that is being filled. */
  get openSamples(): number {
    return this.#open.length;
  }

  /** The next full batch, or null while samples are missing. */
  draw(): Drawn<S> | null {
    let passedOver = 0;
    while (this.#open.length < this.#batchSize && passedOver < this.#queues.length) {
      const queue = this.#queues[this.#cursor]!;
      const placed = queue.waiting.shift();
      if (placed) {
        this.#open.push({ queue, placed });
        passedOver = 0;
      } else {
        if (!isAtEnd(queue)) return null;
        passedOver++;
      }
      this.#cursor = (this.#cursor + 1) % this.#queues.length;
    }
    return this.#open.length === this.#batchSize ? this.#close() : null;
  }

  /**
   * Closes the batch that is being filled although it is not full; null if it has no sample, or while some partition is
   * not read to its known end: there more may wait, and a batch must not depend on which fetch came first.
   */
  drawPartial(): Drawn<S> | null {
    const full = this.draw();
    if (full) return full;
    return this.#open.length > 0 && this.#queues.every(isAtEnd) ? this.#close() : null;
  }

  /** True once everything below the ranges' ends was fetched. */
  has(ranges: readonly OffsetRange[]): boolean {
    return ranges.every((r) => r.to <= this.readTo(r.partition));
  }

  /**
   * The batch that a manifest describes.
   * @param cursor the manifest's cursor, so that the round-robin goes on as it did then
   * @throws Error if a range does not begin where the last batch ended, or is not fetched yet
   */
  drawRange(ranges: readonly OffsetRange[], cursor: number): Drawn<S> {
    if (this.#open.length > 0)
      throw new Error('A manifest is replayed before new batches are drawn, not in the middle of one');
    if (!this.has(ranges)) throw new Error('The ranges of the manifest are not fetched yet');
    for (const range of ranges) {
      const queue = this.#queue(range.partition);
      if (range.from !== queue.from)
        throw new Error(
          `Manifest of partition ${range.partition} begins at ${range.from}, expected ${queue.from}, the end of the batch before`,
        );
      while (queue.waiting.length > 0 && queue.waiting[0]!.offset < range.to)
        this.#open.push({ queue, placed: queue.waiting.shift()! });
    }
    const ends = new Map(ranges.map((r) => [r.partition, r.to]));
    this.#cursor = cursor;
    return this.#close(ends);
  }

  #close(ends?: ReadonlyMap<number, number>): Drawn<S> {
    const open = this.#open;
    this.#open = [];
    open.sort((a, b) => a.queue.partition - b.queue.partition || a.placed.offset - b.placed.offset);
    const ranges = this.#queues.map((queue) => {
      const to = ends?.get(queue.partition) ?? queue.waiting[0]?.offset ?? queue.readTo ?? queue.from;
      const range = { partition: queue.partition, from: queue.from, to };
      queue.from = to;
      return range;
    });
    return { samples: open.map((o) => o.placed.sample), ranges, cursor: this.#cursor };
  }

  #queue(partition: number): Queue<S> {
    const queue = this.#queues.find((q) => q.partition === partition);
    if (!queue)
      throw new Error(
        `No partition ${partition} among ${this.#queues.map((q) => q.partition).join(', ')}: was the topic repartitioned?`,
      );
    return queue;
  }
}

const isAtEnd = (queue: Queue<unknown>): boolean => queue.readTo !== undefined && queue.readTo >= queue.end;
