/** Trains a codebook in a thread of its own, so that its caller goes on serving. Import it as @onemall/quantization/thread. */
import { Worker } from 'node:worker_threads';
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
  numThreads?: number;
}
export interface TrainedCodebook {
  /** As writeCodebook gives them. */
  files: Map<string, Uint8Array>;
  /** Over the vectors it was trained on. */
  metrics: CodebookMetrics;
}
export type ThreadMessage = { kind: 'level'; level: number } | { kind: 'trained'; trained: TrainedCodebook };

/**
 * The vectors move to the thread and are gone here.
 * @param onLevel told after each level
 * @throws what the training throws, or the signal's reason
 */
export function trainInThread(
  task: TrainingTask,
  options: { signal?: AbortSignal; onLevel?: (level: number) => void } = {},
): Promise<TrainedCodebook> {
  const { signal, onLevel } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const worker = new Worker(new URL('./training-thread-worker.ts', import.meta.url), {
      workerData: task,
      transferList: [task.vectors.data.buffer as ArrayBuffer],
    });
    const stop = (): void => {
      reject(signal?.reason);
      void worker.terminate();
    };
    signal?.addEventListener('abort', stop, { once: true });
    worker.on('message', (message: ThreadMessage) => {
      if (message.kind === 'trained') resolve(message.trained);
      else onLevel?.(message.level);
    });
    worker.once('error', reject);
    worker.once('exit', (code) => {
      signal?.removeEventListener('abort', stop);
      reject(new Error(`The training thread ended with code ${code} before it gave a codebook`));
    });
  });
}
