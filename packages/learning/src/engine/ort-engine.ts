import { Worker } from 'node:worker_threads';
import { DivergedError, StateError } from '../trainer-ports.ts';
import type { Arrays, Provider, StepOutcome } from './ort-sessions.ts';
import type { ForwardGraph, GradientGraph, TrainingProgram } from './program.ts';
import type { WorkerCall, WorkerReply, WorkerStart } from './worker-protocol.ts';

/** Trains in a worker thread with onnxruntime. Calls are answered in the order in which they are made. */
export class OrtEngine {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  readonly #exited: Promise<void>;
  #nextId = 0;
  #failure: Error | undefined;

  private constructor(start: WorkerStart) {
    this.#worker = new Worker(new URL('./ort-worker.ts', import.meta.url), { workerData: start });
    this.#worker.on('message', (reply: WorkerReply) => this.#settle(reply));
    this.#worker.on('error', (error) =>
      this.#fail(new Error(`The training thread failed: ${error}`, { cause: error })),
    );
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#fail(new Error(`The training thread has ended (exit code ${code})`));
        resolve();
      });
    });
  }

  /** @param seed of the initial weights */
  static async start(
    program: TrainingProgram,
    seed: number,
    numThreads: number,
    provider: Provider = 'cpu',
  ): Promise<OrtEngine> {
    const engine = new OrtEngine({ program, seed, numThreads, provider });
    await engine.#call({ method: 'ready' });
    return engine;
  }

  addGradient(name: string, graph: GradientGraph): Promise<void> {
    return this.#call({ method: 'addGradient', name, graph });
  }
  addForward(name: string, graph: ForwardGraph): Promise<void> {
    return this.#call({ method: 'addForward', name, graph });
  }
  /** The feeds are handed over: the caller must not use them again. */
  step(name: string, feeds: Arrays, learningRate: number): Promise<StepOutcome> {
    return this.#call({ method: 'step', name, feeds, learningRate }, feeds);
  }
  gradients(name: string, feeds: Arrays): Promise<Record<string, Float32Array>> {
    return this.#call({ method: 'gradients', name, feeds }, feeds);
  }
  forward(name: string, feeds: Arrays): Promise<Arrays> {
    return this.#call({ method: 'forward', name, feeds }, feeds);
  }
  state(): Promise<{ tensors: Map<string, Float32Array>; step: number }> {
    return this.#call({ method: 'state' });
  }
  restore(tensors: ReadonlyMap<string, Float32Array>, step: number): Promise<void> {
    return this.#call({ method: 'restore', tensors, step });
  }
  async close(): Promise<void> {
    if (!this.#failure) await this.#call({ method: 'close' });
    await this.#exited;
  }

  #call<R>(call: WorkerCall, transfer: Arrays = {}): Promise<R> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    return new Promise<R>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      const buffers = new Set(Object.values(transfer).map((array) => array.buffer as ArrayBuffer));
      this.#worker.postMessage({ id, call }, [...buffers]);
    });
  }

  #settle(reply: WorkerReply): void {
    const caller = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (!caller) return;
    if (reply.ok) {
      caller.resolve(reply.value as never);
      return;
    }
    const kind = { DivergedError, StateError }[reply.name] ?? Error;
    caller.reject(new kind(reply.message, { cause: reply.stack }));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}
