import { Worker } from 'node:worker_threads';
import type { Vectors } from '@onemall/quantization';

export interface TrainingTask {
  vectors: Vectors;
  scenario: string;
  version: number;
  numCodes: readonly [number, number, number];
  lastLevel: 'kmeans' | 'fsq';
  cutoffMs: number;
  seed: number;
}
export interface TrainedCodebook {
  files: Map<string, Uint8Array>;
  metrics: Record<string, number>;
}

/** Runs trainCodebook in a worker thread; the vectors move there. @throws what the training throws, or the signal's reason */
export function trainInThread(task: TrainingTask, stopping: AbortSignal): Promise<TrainedCodebook> {
  return new Promise((resolve, reject) => {
    if (stopping.aborted) return reject(stopping.reason);
    const worker = new Worker(new URL('./train-worker.ts', import.meta.url), {
      workerData: task,
      transferList: [task.vectors.data.buffer as ArrayBuffer],
    });
    const stop = (): void => {
      void worker.terminate();
      reject(stopping.reason);
    };
    stopping.addEventListener('abort', stop, { once: true });
    worker.once('message', (trained: TrainedCodebook) => resolve(trained));
    worker.once('error', reject);
    worker.once('exit', (code) => {
      stopping.removeEventListener('abort', stop);
      reject(new Error(`The training thread ended with code ${code} before it gave a codebook`));
    });
  });
}
