import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as ort from 'onnxruntime-node';
import { cpuSession, tensorOf } from '../src/engine/ort-sessions.ts';
import { PICKED, pickValues, WANTED } from '../src/onnx/pick-values.ts';
import { encodeOnnx, fieldsOf } from '../src/onnx/protobuf.ts';

/** y = x + 1 and z = 2 y over [2, 3]. */
const MODEL = encodeOnnx({
  nodes: [
    { op: 'Add', domain: '', attributes: {}, inputs: ['x', 'one'], outputs: ['y'] },
    { op: 'Add', domain: '', attributes: {}, inputs: ['y', 'y'], outputs: ['z'] },
  ],
  initializers: [{ name: 'one', shape: [1], type: 'float32', data: Float32Array.of(1) }],
  inputs: [{ name: 'x', shape: [2, 3], type: 'float32' }],
  outputs: ['y', 'z'].map((name) => ({ name, shape: [2, 3], type: 'float32' as const })),
});

test('an output becomes a choice of its values, of any number and order; the others stay', async () => {
  const session = await ort.InferenceSession.create(pickValues(MODEL, 'z'), cpuSession(1));
  assert.deepEqual([...session.inputNames].sort(), [WANTED, 'x']);
  assert.deepEqual([...session.outputNames].sort(), [PICKED, 'y']);
  const x = tensorOf(Float32Array.of(0, 1, 2, 3, 4, 5), [2, 3]);
  for (const wanted of [[5], [0, 0, 3, 1], []]) {
    const result = await session.run({ x, [WANTED]: tensorOf(Int32Array.from(wanted), [wanted.length]) });
    assert.deepEqual(
      [...(result[PICKED]!.data as Float32Array)],
      wanted.map((at) => 2 * (at + 1)),
    );
    assert.deepEqual([...(result.y!.data as Float32Array)], [1, 2, 3, 4, 5, 6]);
  }
  const outside = { x, [WANTED]: tensorOf(Int32Array.of(6), [1]) };
  await assert.rejects(session.run(outside), /out of data bounds/);
  await session.release();
});

test('what is no model, or has no such output, is an error', () => {
  assert.throws(() => pickValues(MODEL, 'w'), /no output w/);
  assert.throws(() => pickValues(new Uint8Array(0), 'z'), /hold no ONNX graph/);
  for (const cut of [1, 7, MODEL.length - 1])
    assert.throws(() => pickValues(MODEL.subarray(0, cut), 'z'), RangeError, `${cut} bytes`);
});

test('the fields of a message, put together again, are the message', () => {
  assert.deepEqual(Buffer.concat(fieldsOf(MODEL).map(({ whole }) => whole)), Buffer.from(MODEL));
  assert.throws(() => fieldsOf(Uint8Array.of(0x0b)), /wire type 3/);
});
