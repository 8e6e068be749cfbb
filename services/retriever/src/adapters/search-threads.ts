/**
 * A policy on threads of its own, so that searches never hold up the thread that answers HTTP. Each thread has its own
 * sessions and does one search at a time; the trie lies in shared memory. A newer policy gets new threads: those of the old
 * one end when its last user is done.
 */
import { Worker } from 'node:worker_threads';
import type { ItemTensors } from '@onemall/features';
import type { PolicyManifest } from '@onemall/learning';
import { PublishedModelError } from '@onemall/learning';
import type { PolicySearch, SearchJob, SearchResult } from '../search.ts';

export interface ThreadStart {
  files: Map<string, Uint8Array>;
}
/** What a thread can be asked: a search, or the vectors of items. */
type ThreadJob = SearchJob | { items: readonly ItemTensors[] };
type ThreadAnswer = SearchResult | Float32Array;
export interface ThreadCall {
  id: number;
  /** null: close. */
  job: ThreadJob | null;
  /** Not 0 once nobody waits any more; shared, for a thread reads no messages while a graph runs. */
  cancelled: Int32Array;
}
export type ThreadReply =
  | { id: number; manifest: PolicyManifest }
  | { id: number; answer: ThreadAnswer }
  | { id: number; failed: { name: string; message: string; stack: string | undefined } };

interface Pending {
  job: ThreadJob;
  signal: AbortSignal | undefined;
  resolve: (answer: ThreadAnswer) => void;
  reject: (error: unknown) => void;
}

/** @throws PublishedModelError when the files are no policy */
export async function openSearchThreads(
  files: ReadonlyMap<string, Uint8Array>,
  options: { threads: number; onFailure: (error: Error) => void },
): Promise<PolicySearch> {
  const start: ThreadStart = { files: new Map(files) };
  const threads = Array.from({ length: options.threads }, () => new SearchThread(start));
  const opened = await Promise.allSettled(threads.map((thread) => thread.ready));
  const refused = opened.find((result) => result.status === 'rejected');
  if (refused) {
    await Promise.all(threads.map((thread) => thread.close()));
    throw refused.reason;
  }
  const [manifest] = opened.map((result) => (result as PromiseFulfilledResult<PolicyManifest>).value);
  return new SearchThreads(manifest!, threads, options.onFailure);
}

class SearchThreads implements PolicySearch {
  readonly manifest: PolicyManifest;
  readonly #threads: readonly SearchThread[];
  readonly #idle: SearchThread[];
  readonly #waiting: Pending[] = [];
  #closed = false;

  constructor(manifest: PolicyManifest, threads: readonly SearchThread[], onFailure: (error: Error) => void) {
    this.manifest = manifest;
    this.#threads = threads;
    this.#idle = [...threads];
    for (const thread of threads)
      thread.exited.then((error) => {
        if (!this.#closed) onFailure(error);
      });
  }

  search(job: SearchJob, signal?: AbortSignal): Promise<SearchResult> {
    return this.#run(job, signal) as Promise<SearchResult>;
  }
  embed(items: readonly ItemTensors[], signal?: AbortSignal): Promise<Float32Array> {
    return this.#run({ items }, signal) as Promise<Float32Array>;
  }

  #run(job: ThreadJob, signal: AbortSignal | undefined): Promise<ThreadAnswer> {
    if (this.#closed) return Promise.reject(new Error('This policy was closed'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, signal, resolve, reject });
      this.#startNext();
    });
  }

  #startNext(): void {
    const pending = this.#waiting[0];
    const thread = pending && this.#idle.pop();
    if (!thread) return;
    this.#waiting.shift();
    thread
      .run(pending.job, pending.signal)
      .then(pending.resolve, pending.reject)
      .finally(() => {
        this.#idle.push(thread);
        this.#startNext();
      });
  }

  /** Nobody searches any more: `HotSwap` closes a policy after its last lease. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('This policy was closed'));
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }
}

class SearchThread {
  readonly #worker: Worker;
  readonly ready: Promise<PolicyManifest>;
  /** The reason why it ended. */
  readonly exited: Promise<Error>;
  readonly #settled = Promise.withResolvers<PolicyManifest>();
  #nextId = 1;
  #running: {
    id: number;
    resolve: (answer: ThreadAnswer) => void;
    reject: (error: unknown) => void;
  } | null = null;

  constructor(start: ThreadStart) {
    this.#worker = new Worker(new URL('./search-thread.ts', import.meta.url), { workerData: start });
    this.ready = this.#settled.promise;
    this.ready.catch(() => {}); // awaited by who opens; until then its failure is not unhandled
    this.#worker.on('message', (reply: ThreadReply) => this.#take(reply));
    const exited = Promise.withResolvers<Error>();
    this.exited = exited.promise;
    let crashed: unknown;
    this.#worker.once('error', (error) => {
      crashed = error;
    });
    this.#worker.once('exit', (code) => {
      const error = new Error(`A search thread has ended (exit code ${code})`, { cause: crashed });
      this.#settled.reject(error);
      this.#running?.reject(error);
      this.#running = null;
      exited.resolve(error);
    });
  }

  async run(job: ThreadJob, signal: AbortSignal | undefined): Promise<ThreadAnswer> {
    signal?.throwIfAborted();
    const cancelled = new Int32Array(new SharedArrayBuffer(4));
    const cancel = (): void => {
      Atomics.store(cancelled, 0, 1);
    };
    signal?.addEventListener('abort', cancel, { once: true });
    const id = this.#nextId++;
    try {
      return await new Promise<ThreadAnswer>((resolve, reject) => {
        this.#running = { id, resolve, reject };
        this.#worker.postMessage({ id, job, cancelled } satisfies ThreadCall);
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  #take(reply: ThreadReply): void {
    if (reply.id === 0) {
      if ('manifest' in reply) this.#settled.resolve(reply.manifest);
      else if ('failed' in reply) this.#settled.reject(new PublishedModelError(reply.failed.message));
      return;
    }
    const running = this.#running;
    this.#running = null;
    if (!running || running.id !== reply.id) return;
    if ('answer' in reply) running.resolve(reply.answer);
    else if ('failed' in reply) {
      const { name, message, stack } = reply.failed;
      running.reject(Object.assign(new Error(message), { name, stack }));
    }
  }

  async close(): Promise<void> {
    this.#worker.postMessage({ id: 0, job: null, cancelled: new Int32Array(1) } satisfies ThreadCall);
    await this.exited;
  }
}
