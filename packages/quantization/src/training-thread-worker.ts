/** The other side of training-thread.ts: trains one codebook and sends it back. */
import { parentPort, workerData } from 'node:worker_threads';
import { trainCodebook } from './codebook.ts';
import { writeCodebook } from './codebook-files.ts';
import { measureCodebook } from './sid-metrics.ts';
import type { ThreadMessage, TrainingTask } from './training-thread.ts';
import { seededSource } from './vectors.ts';

const { vectors, seed, ...task } = workerData as TrainingTask;
const send = (message: ThreadMessage): void => parentPort!.postMessage(message);
const codebook = trainCodebook(vectors, {
  ...task,
  random: seededSource(seed),
  onLevel: (level) => send({ kind: 'level', level }),
});
send({
  kind: 'trained',
  trained: { files: writeCodebook(codebook), metrics: measureCodebook(codebook, vectors) },
});
