/** The thread behind `SearchThreads`: holds one policy's graphs and answers searches one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { loadPolicy } from '@onemall/learning';
import { runSearch } from '../search.ts';
import type { ThreadCall, ThreadReply, ThreadStart } from './search-threads.ts';

const port = parentPort!;
const { files } = workerData as ThreadStart;

const failed = (id: number, error: unknown): ThreadReply => {
  const { name, message, stack } = error as Error;
  return { id, failed: { name, message, stack } };
};

try {
  const runtime = await loadPolicy(files);
  port.on('message', async ({ id, job, cancelled }: ThreadCall) => {
    if (job === null) {
      await runtime.close();
      port.close();
      return;
    }
    const checkTime = (): void => {
      if (Atomics.load(cancelled, 0) !== 0) throw new Error('Nobody waits for this search any more');
    };
    try {
      const found = await runSearch(runtime, job, checkTime);
      const transfer = [
        found.packed.buffer,
        found.scores.buffer,
        found.tokenLogProbs.buffer,
      ] as ArrayBuffer[];
      port.postMessage({ id, found } satisfies ThreadReply, transfer);
    } catch (error) {
      port.postMessage(failed(id, error));
    }
  });
  port.postMessage({ id: 0, manifest: runtime.manifest } satisfies ThreadReply);
} catch (error) {
  port.postMessage(failed(0, error));
}
