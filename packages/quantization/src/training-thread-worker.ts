/** The other side of training-thread.ts: trains one codebook and sends it back. */
import { parentPort, workerData } from 'node:worker_threads';
import { trainCodebook } from './codebook.ts';
import { readCodebook, writeCodebook, writeContinues } from './codebook-files.ts';
import { withEncoderThreads } from './encoder-threads.ts';
import { canMatch, matchCodebook, matchedCodes, movedShares } from './match-codebooks.ts';
import { sameProjector } from './projector.ts';
import { measureCodebook } from './sid-metrics.ts';
import type { ThreadMessage, ThreadTask } from './training-thread.ts';

const { vectors, previous, stopFlag, ...task } = workerData as ThreadTask;
const checkStop = (): void => {
  if (Atomics.load(stopFlag, 0) === 1) throw new Error('The training was stopped');
};
const send = (message: ThreadMessage): void => parentPort!.postMessage(message);
const before = previous ? readCodebook(previous) : null;
const start =
  before?.dim === vectors.dim &&
  sameProjector(before.projector, task.projector) &&
  before.numCodes.every((k, l) => k === task.numCodes[l]) &&
  before.levels.at(-1)!.kind === task.lastLevel
    ? before
    : null;
const trained = await trainCodebook(vectors, {
  ...task,
  ...(start && { start }),
  fsq: { onEpoch: checkStop },
  onState: (state) => {
    checkStop();
    send({ kind: 'state', state });
  },
});
const codebook = before && canMatch(before, trained) ? matchCodebook(before, trained) : trained;
const size = { numVectors: vectors.numVectors, maxThreads: task.numThreads ?? 1 };
const [metrics, moved] = await withEncoderThreads(
  codebook,
  size,
  async (encoder) =>
    [
      await measureCodebook(encoder, vectors),
      start ? await withEncoderThreads(start, size, (old) => movedShares(old, encoder, vectors)) : null,
    ] as const,
);
const files = writeCodebook(codebook);
if (before)
  files.set(...writeContinues({ version: before.version, match: await matchedCodes(before, codebook) }));
send({ kind: 'trained', trained: { files, metrics, moved } });
