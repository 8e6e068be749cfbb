/**
 * TensorFlow's own library out of the wheel, on the CPU. `npm run setup:tensorflow` installs it beside the project's other downloads,
 * and the CI does that while its first tests run (scripts/ci.ts). Skipped where it cannot be had or is still being set up; where setting
 * it up failed, so does this file.
 */
import { test } from 'node:test';
import { loadNativeTensorflow, tensorflowFolder } from '../src/tensorflow/load-tensorflow.ts';
import { whyNoTensorflow } from '../src/tensorflow/setup-outcome.ts';
import { assertTrainsAsOnnxruntime } from './engine-figures.ts';
import { describeAsOnnxruntime } from './tensorflow-cases.ts';

const folder = tensorflowFolder();
const skip = whyNoTensorflow(folder) ?? false;

test('TensorFlow out of the wheel trains as onnxruntime does', { skip }, () =>
  assertTrainsAsOnnxruntime('tensorflow', /backend tensorflow/),
);
if (!skip) describeAsOnnxruntime('tensorflow', () => loadNativeTensorflow(folder));
