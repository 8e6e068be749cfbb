import { test } from 'node:test';
import { assertTrainsAsOnnxruntime } from './engine-figures.ts';

test('a trainer gives the same figures in WebAssembly', () =>
  assertTrainsAsOnnxruntime('wasm', /backend wasm/));
