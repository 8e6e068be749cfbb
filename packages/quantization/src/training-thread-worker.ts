/** The other side of training-thread.ts: trains one codebook and sends it back. */
import { parentPort, workerData } from 'node:worker_threads';
import { trainCodebook } from './codebook.ts';
import { withEncoder } from './codebook-encoder.ts';
import { writeCodebook } from './codebook-files.ts';
import { measureCodebook } from './sid-metrics.ts';
import type { ThreadMessage, TrainingTask } from './training-thread.ts';

const { vectors, ...task } = workerData as TrainingTask;
const send = (message: ThreadMessage): void => parentPort!.postMessage(message);
const codebook = await trainCodebook(vectors, {
  ...task,
  onState: ({ levels, kmeans }) => {
    if (!kmeans) send({ kind: 'level', level: levels.length });
  },
});
const metrics = await withEncoder(codebook, (encoder) => measureCodebook(encoder, vectors), task.numThreads);
send({ kind: 'trained', trained: { files: writeCodebook(codebook), metrics } });
