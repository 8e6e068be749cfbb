/** The other side of encoder-threads.ts: encodes blocks with one codebook, one after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Codebook } from './codebook.ts';
import { CodebookEncoder } from './codebook-encoder.ts';
import type { EncoderThreadCall } from './encoder-threads.ts';

const port = parentPort!;
const opened = CodebookEncoder.open(workerData as Codebook);
let before: Promise<unknown> = opened;
port.on('message', (block: EncoderThreadCall) => {
  // What goes wrong here ends the thread, and whoever waits for it is told.
  before = before.then(async () => {
    const encoder = await opened;
    if (block === null) {
      await encoder.close();
      port.close();
      return;
    }
    const encoded = await encoder.encodeBlock(block);
    port.postMessage(encoded, [encoded.codes.buffer as ArrayBuffer, encoded.squares.buffer as ArrayBuffer]);
  });
});
