/**
 * TensorFlow's own library out of the wheel, on the CPU. `npm run setup:tensorflow` installs it beside the project's other downloads,
 * and the CI does that while its first tests run (scripts/ci.ts); skipped where it could not be had, or not in time.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { tensorflowFolder } from '../src/tensorflow/load-tensorflow.ts';
import { assertTrainsAsOnnxruntime } from './engine-figures.ts';

/** Setting up ends with a move to this place: what stands here is whole. */
const isThere = existsSync(path.join(tensorflowFolder(), 'node_modules'));
const skip = isThere ? false : `no TensorFlow in ${tensorflowFolder()}: npm run setup:tensorflow says why`;

test('TensorFlow out of the wheel trains as onnxruntime does', { skip }, () =>
  assertTrainsAsOnnxruntime('tensorflow', /backend tensorflow/),
);
