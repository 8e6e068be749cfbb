/** Sorts more than fits in memory: sorted pieces go to files of JSON lines, which are merged while being read. */
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';

const BATCH = 1_000;

export class ExternalSort<T> {
  readonly #compare: (a: T, b: T) => number;
  readonly #limit: number;
  readonly #parent: string;
  #folder: string | undefined;
  #buffer: T[] = [];
  #files: string[] = [];
  #count = 0;

  /**
   * @param compare a total order: ties would come in any order
   * @param limit values kept in memory at once
   * @param folder where a temporary folder for pieces is made when they are needed
   */
  constructor(compare: (a: T, b: T) => number, limit: number, folder: string) {
    this.#compare = compare;
    this.#limit = limit;
    this.#parent = folder;
  }

  get count(): number {
    return this.#count;
  }

  /** Resolves at once except when a piece is full and written. */
  async add(value: T): Promise<void> {
    this.#buffer.push(value);
    this.#count++;
    if (this.#buffer.length >= this.#limit) await this.#spill();
  }

  /** All values in order, in batches. May be read again and again. */
  async *sorted(): AsyncGenerator<T[]> {
    this.#buffer.sort(this.#compare);
    const runs: AsyncIterator<T>[] = this.#files.map((f) => readValues<T>(f));
    if (runs.length === 0) {
      for (let i = 0; i < this.#buffer.length; i += BATCH) yield this.#buffer.slice(i, i + BATCH);
      return;
    }
    yield* this.#merge([...runs, fromArray(this.#buffer)]);
  }

  async close(): Promise<void> {
    this.#buffer = [];
    if (this.#folder) await rm(this.#folder, { recursive: true, force: true });
  }

  async *#merge(runs: AsyncIterator<T>[]): AsyncGenerator<T[]> {
    const heads: { value: T; run: AsyncIterator<T> }[] = [];
    const insert = (value: T, run: AsyncIterator<T>): void => {
      // few runs: a sorted list is simpler than a heap and as fast
      let i = heads.length;
      while (i > 0 && this.#compare(heads[i - 1]!.value, value) < 0) i--;
      heads.splice(i, 0, { value, run });
    };
    try {
      for (const run of runs) {
        const first = await run.next();
        if (!first.done) insert(first.value, run);
      }
      let batch: T[] = [];
      for (let least = heads.pop(); least; least = heads.pop()) {
        batch.push(least.value);
        const next = await least.run.next();
        if (!next.done) insert(next.value, least.run);
        if (batch.length < BATCH) continue;
        yield batch;
        batch = [];
      }
      if (batch.length > 0) yield batch;
    } finally {
      for (const run of runs) await run.return?.();
    }
  }

  async #spill(): Promise<void> {
    if (!this.#folder) {
      await mkdir(this.#parent, { recursive: true });
      this.#folder = await mkdtemp(path.join(this.#parent, 'sort-'));
    }
    this.#buffer.sort(this.#compare);
    const file = path.join(this.#folder, `${this.#files.length}.ndjson`);
    await pipeline(lines(this.#buffer), createWriteStream(file));
    this.#files.push(file);
    this.#buffer = [];
  }
}

function* lines<T>(values: readonly T[]): Generator<string> {
  for (let i = 0; i < values.length; i += BATCH)
    yield values
      .slice(i, i + BATCH)
      .map((v) => `${JSON.stringify(v)}\n`)
      .join('');
}
async function* readValues<T>(file: string): AsyncGenerator<T> {
  const input = createReadStream(file);
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY }))
      yield JSON.parse(line) as T;
  } finally {
    input.destroy();
  }
}
async function* fromArray<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}
