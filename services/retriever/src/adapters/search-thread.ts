/** The thread behind `SearchThreads`: holds one policy's graphs and answers searches one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { type ItemTowerRuntime, loadItemTower, loadPolicy } from '@onemall/learning';
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
  /** Loaded when it is first asked for: most retrievers use the beam alone. */
  let tower: ItemTowerRuntime | undefined;
  port.on('message', async ({ id, job, cancelled }: ThreadCall) => {
    if (job === null) {
      await tower?.close();
      await runtime.close();
      port.close();
      return;
    }
    const checkTime = (): void => {
      if (Atomics.load(cancelled, 0) !== 0) throw new Error('Nobody waits for this search any more');
    };
    try {
      if ('items' in job) {
        tower ??= await loadItemTower(files);
        const vectors = await tower.embed(job.items);
        port.postMessage({ id, answer: vectors } satisfies ThreadReply, [vectors.buffer as ArrayBuffer]);
        return;
      }
      const answer = await runSearch(runtime, job, checkTime);
      const { packed, scores, tokenLogProbs } = answer.found;
      const transfer = [packed.buffer, scores.buffer, tokenLogProbs.buffer] as ArrayBuffer[];
      port.postMessage({ id, answer } satisfies ThreadReply, transfer);
    } catch (error) {
      port.postMessage(failed(id, error));
    }
  });
  port.postMessage({ id: 0, manifest: runtime.manifest } satisfies ThreadReply);
} catch (error) {
  port.postMessage(failed(0, error));
}
