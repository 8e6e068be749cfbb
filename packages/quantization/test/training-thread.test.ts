import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import {
  measureCodebook,
  readCodebook,
  stackVectors,
  trainCodebook,
  withEncoder,
  writeCodebook,
} from '../src/index.ts';
import { trainInThread } from '../src/training-thread.ts';
import { clusters } from './reference.ts';

const made = () => clusters(new SeededRandom(1), { numVectors: 300, dim: 6, numClusters: 8, spread: 0.3 });
const task = {
  scenario: 's',
  version: 2,
  numCodes: [16, 16, 16] as const,
  lastLevel: 'fsq' as const,
  cutoffMs: 5,
};

test('a thread trains the codebook that a direct call trains', async () => {
  const levels: number[] = [];
  const { files, metrics } = await trainInThread(
    { ...task, vectors: made(), seed: 3 },
    { onState: ({ levels: done, kmeans }) => kmeans ?? levels.push(done.length) },
  );
  const direct = await trainCodebook(made(), { ...task, seed: 3 });
  assert.deepEqual(readCodebook(files), direct);
  assert.deepEqual(readCodebook(writeCodebook(direct)), direct);
  assert.deepEqual(metrics, await withEncoder(direct, (encoder) => measureCodebook(encoder, made())));
  assert.deepEqual(levels, [1, 2, 3]);
});

test('an error of the training comes back, and a signal ends it', async () => {
  await assert.rejects(
    trainInThread({ ...task, vectors: stackVectors([[Number.NaN]]), seed: 1 }),
    /Vector 0 holds NaN/,
  );
  const stop = new AbortController();
  const training = trainInThread({ ...task, vectors: made(), seed: 1 }, { signal: stop.signal });
  stop.abort(new Error('enough'));
  await assert.rejects(training, /enough/);
});
