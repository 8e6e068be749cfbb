/**
 * Loads TensorFlow.js with one of its backends. `tensorflow` is the native library: the package @tensorflow/tfjs-node-gpu with the
 * TensorFlow that `npm run setup:tensorflow` put in place. `wasm` and `cpu` always load.
 */
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import path from 'node:path';
import util from 'node:util';
import type { Tensorflow } from './tensorflow-ops.ts';

export { setupLog, writeSetupOutcome } from './setup-outcome.ts';

/** Where setup:tensorflow installs: ONEMALL_TENSORFLOW, else beside the other downloads of this project. */
export function tensorflowFolder(env: Record<string, string | undefined> = process.env): string {
  const cache = path.join(env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'onemall-pipeline');
  return env.ONEMALL_TENSORFLOW || path.join(cache, 'tensorflow');
}

/** TensorFlow.js on a backend that needs nothing installed. */
export async function loadTfjs(backend: 'wasm' | 'cpu'): Promise<Tensorflow> {
  const tf: Tensorflow = await import('@tensorflow/tfjs');
  if (backend === 'wasm') await import('@tensorflow/tfjs-backend-wasm');
  if (!(await tf.setBackend(backend)))
    throw new Error(`TensorFlow.js has no working backend ${backend} here`);
  await tf.ready();
  return tf;
}

/** TensorFlow.js on the native library. @throws Error saying what is missing */
export async function loadNativeTensorflow(folder: string): Promise<Tensorflow & { usesGpu: boolean }> {
  // Removed from Node 23; the binding's wrapper still calls it.
  Object.assign(util, { isNullOrUndefined: (value: unknown) => value === null || value === undefined });
  const load = createRequire(path.join(folder, 'package.json'));
  let tf: Tensorflow;
  try {
    tf = load('@tensorflow/tfjs-node-gpu') as Tensorflow;
  } catch (error) {
    const [reason] = String((error as Error).message).split('\n');
    throw new Error(`TensorFlow does not load from ${folder} (${reason}); run npm run setup:tensorflow`, {
      cause: error,
    });
  }
  await tf.setBackend('tensorflow');
  await tf.ready();
  const backend = tf.backend() as unknown as { isUsingGpuDevice?: boolean };
  return Object.assign(tf, { usesGpu: backend.isUsingGpuDevice === true });
}
