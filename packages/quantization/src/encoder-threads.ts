/**
 * A codebook's encoder on several threads, for whole catalogues: each thread has the levels for itself, and the numbers are those
 * of one thread. Import it as @onemall/quantization/encoder-threads.
 */
import { Worker } from 'node:worker_threads';
import type { Codebook } from './codebook.ts';
import {
  blocksOf,
  CodebookEncoder,
  type Encoded,
  type EncodedBlock,
  joinBlocks,
  VECTORS_AT_ONCE,
  type VectorEncoder,
} from './codebook-encoder.ts';
import { ProjectorRunner } from './projector.ts';
import { toSource, type VectorSource } from './vector-source.ts';
import type { Vectors } from './vectors.ts';

/** Blocks that a thread has before it answers: it never waits for the next one. */
const IN_FLIGHT = 3;
/** Opening the levels takes a thread as long as it needs for about so many vectors. */
const WORTH_A_THREAD = 16 * VECTORS_AT_ONCE;

/** A block to encode; null asks the thread to end. Answers, each an `EncodedBlock`, come in the order of the blocks. */
export type EncoderThreadCall = Vectors | null;

interface Waiting {
  resolve: (block: EncodedBlock) => void;
  reject: (error: Error) => void;
}

/**
 * Opens an encoder for one use.
 * @param numVectors how many are to be encoded at least: few of them are encoded on this thread
 * @param maxThreads 1: on this thread
 */
export async function withEncoderThreads<T>(
  codebook: Codebook,
  { numVectors, maxThreads }: { numVectors: number; maxThreads: number },
  use: (encoder: VectorEncoder) => Promise<T>,
): Promise<T> {
  const threads = Math.min(maxThreads, Math.floor(numVectors / WORTH_A_THREAD));
  const encoder = await (threads > 1
    ? EncoderThreads.open(codebook, threads)
    : CodebookEncoder.open(codebook));
  try {
    return await use(encoder);
  } finally {
    await encoder.close();
  }
}

export class EncoderThreads implements VectorEncoder {
  readonly codebook: Codebook;
  readonly #threads: readonly EncoderThread[];

  private constructor(codebook: Codebook, threads: readonly EncoderThread[]) {
    this.codebook = codebook;
    this.#threads = threads;
  }

  /** @throws as `CodebookEncoder.open` */
  static async open(codebook: Codebook, threads: number): Promise<EncoderThreads> {
    // Refused here, with the error that says why, and not by the end of a thread.
    if (codebook.projector) await (await ProjectorRunner.open(codebook.projector)).close();
    return new EncoderThreads(
      codebook,
      Array.from({ length: threads }, () => new EncoderThread(codebook)),
    );
  }

  async encode(vectors: Vectors | VectorSource): Promise<Int32Array> {
    return (await this.encodeWithErrors(vectors)).codes;
  }

  async encodeWithErrors(vectors: Vectors | VectorSource): Promise<Encoded> {
    const blocks: Promise<EncodedBlock>[] = [];
    try {
      for await (const chunk of toSource(vectors).chunks())
        for (const block of blocksOf(this.codebook, chunk)) {
          const thread = await this.#next();
          blocks.push(thread.encode(block));
        }
      return joinBlocks(await Promise.all(blocks));
    } finally {
      await Promise.allSettled(blocks);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** The thread with the fewest blocks, once one has fewer than it may have. */
  async #next(): Promise<EncoderThread> {
    for (;;) {
      const thread = this.#threads.reduce((a, b) => (b.inFlight < a.inFlight ? b : a));
      if (thread.inFlight < IN_FLIGHT) return thread;
      await Promise.race(this.#threads.map(({ answered }) => answered));
    }
  }
}

class EncoderThread {
  readonly #worker: Worker;
  readonly #waiting: Waiting[] = [];
  readonly #exited: Promise<void>;
  #crash: Error | null = null;
  #answer = Promise.withResolvers<void>();

  constructor(codebook: Codebook) {
    this.#worker = new Worker(new URL('./encoder-thread-worker.ts', import.meta.url), {
      workerData: codebook,
    });
    this.#worker.on('message', (encoded: EncodedBlock) => {
      this.#waiting.shift()?.resolve(encoded);
      this.#tellAnswered();
    });
    this.#worker.once('error', (error) => this.#end(error as Error));
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#end(new Error(`An encoding thread ended with code ${code} before it answered`));
        resolve();
      });
    });
  }

  get inFlight(): number {
    return this.#waiting.length;
  }
  /** Settles with the next answer, or when there will be none. */
  get answered(): Promise<void> {
    return this.#answer.promise;
  }

  /** @param block moves to the thread */
  encode(block: Vectors): Promise<EncodedBlock> {
    if (this.#crash) return Promise.reject(this.#crash);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage(block satisfies EncoderThreadCall, [block.data.buffer as ArrayBuffer]);
    });
  }

  async close(): Promise<void> {
    this.#worker.postMessage(null satisfies EncoderThreadCall);
    await this.#exited;
  }

  #end(error: Error): void {
    this.#crash ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#crash);
    this.#tellAnswered();
  }
  #tellAnswered(): void {
    this.#answer.resolve();
    this.#answer = Promise.withResolvers();
  }
}
