/** Trains one codebook in a thread of its own, so that rooms are served meanwhile. */
import { parentPort, workerData } from 'node:worker_threads';
import {
  measureCodebook,
  namedMetrics,
  trainCodebook,
  type Vectors,
  writeCodebook,
} from '@onemall/quantization';
import { SeededRandom } from '@onemall/service-kit';
import type { TrainingTask } from './train-in-thread.ts';

const { vectors, seed, ...task } = workerData as TrainingTask;
const training: Vectors = vectors;
const codebook = trainCodebook(training, { ...task, random: new SeededRandom(seed) });
parentPort!.postMessage({
  files: writeCodebook(codebook),
  metrics: namedMetrics(measureCodebook(codebook, training)),
});
