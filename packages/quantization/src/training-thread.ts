/** Trains a codebook in a thread of its own, so that its caller goes on serving. Import it as @onemall/quantization/thread. */
import { Worker } from 'node:worker_threads';
import type { TrainingState } from './codebook.ts';
import type { MovedShares } from './match-codebooks.ts';
import type { Projector } from './projector.ts';
import type { CodebookMetrics } from './sid-metrics.ts';
import type { Vectors } from './vectors.ts';

export interface TrainingTask {
  vectors: Vectors;
  scenario: string;
  version: number;
  numCodes: readonly [number, number, number];
  lastLevel: 'kmeans' | 'fsq';
  cutoffMs: number;
  seed: number;
  textEncoder?: string;
  projector?: Projector;
  numThreads?: number;
  /** Files of the version before, whose code indices are kept where they fit. */
  previous?: ReadonlyMap<string, Uint8Array>;
  /** A state that an earlier attempt told. */
  resume?: TrainingState;
}
export interface TrainedCodebook {
  /** As writeCodebook gives them; with a version before also which of its codes go on (`readContinues`). */
  files: Map<string, Uint8Array>;
  /** Over the vectors it was trained on. */
  metrics: CodebookMetrics;
  /** Items that get other codes than in the version before; null without one, or with one that does not fit. */
  moved: MovedShares | null;
}
export type ThreadMessage =
  | { kind: 'state'; state: TrainingState }
  | { kind: 'trained'; trained: TrainedCodebook };

export interface ThreadTask extends TrainingTask {
  /** int32 [1], shared: 1 asks the thread to end. */
  stopFlag: Int32Array;
}

/**
 * The vectors move to the thread and are gone here. A thread that is asked to stop ends with its iteration or epoch: one
 * that is killed inside onnxruntime takes the process with it.
 * @param onState told after each iteration of k-means and after each level
 * @throws what the training throws, or the signal's reason, when the thread has ended
 */
export function trainInThread(
  task: TrainingTask,
  options: { signal?: AbortSignal; onState?: (state: TrainingState) => void } = {},
): Promise<TrainedCodebook> {
  const { signal, onState } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stopFlag = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(new URL('./training-thread-worker.ts', import.meta.url), {
      workerData: { ...task, stopFlag } satisfies ThreadTask,
      transferList: [task.vectors.data.buffer as ArrayBuffer],
    });
    let outcome: TrainedCodebook | Error | undefined;
    const stop = (): void => {
      Atomics.store(stopFlag, 0, 1);
    };
    signal?.addEventListener('abort', stop, { once: true });
    worker.on('message', (message: ThreadMessage) => {
      if (message.kind === 'trained') outcome = message.trained;
      else if (!signal?.aborted) onState?.(message.state);
    });
    worker.once('error', (error: Error) => {
      outcome = error;
    });
    worker.once('exit', (code) => {
      signal?.removeEventListener('abort', stop);
      if (signal?.aborted) reject(signal.reason);
      else if (outcome && !(outcome instanceof Error)) resolve(outcome);
      else
        reject(outcome ?? new Error(`The training thread ended with code ${code} before it gave a codebook`));
    });
  });
}
