/** The thread that trains: answers the calls of `OrtEngine` one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { OrtSessions } from './ort-sessions.ts';
import type { WorkerCall, WorkerReply, WorkerStart } from './worker-protocol.ts';

const port = parentPort!;
const { program, seed, numThreads, provider } = workerData as WorkerStart;
const trainer = new OrtSessions(program, seed, numThreads, provider);

async function answer(call: WorkerCall): Promise<unknown> {
  switch (call.method) {
    case 'ready':
      return null;
    case 'addGradient':
      return trainer.addGradient(call.name, call.graph);
    case 'addForward':
      return trainer.addForward(call.name, call.graph);
    case 'step':
      return trainer.step(call.name, call.feeds, call.learningRate);
    case 'gradients':
      return trainer.gradients(call.name, call.feeds);
    case 'forward':
      return trainer.forward(call.name, call.feeds);
    case 'state':
      return trainer.state();
    case 'restore':
      return trainer.restore(call.tensors, call.step);
    case 'close':
      return trainer.close();
  }
}

let queue: Promise<void> = Promise.resolve();
port.on('message', ({ id, call }: { id: number; call: WorkerCall }) => {
  queue = queue.then(async () => {
    let reply: WorkerReply;
    try {
      reply = { id, ok: true, value: await answer(call) };
    } catch (error) {
      const { name, message, stack } = error as Error;
      reply = { id, ok: false, name, message, stack };
    }
    port.postMessage(reply);
    if (call.method === 'close') port.close();
  });
});
