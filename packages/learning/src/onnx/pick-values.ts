/**
 * Turns an output of a published graph into a choice of its values. onnxruntime-node copies every output into new memory, also
 * one that it was given memory for: 4 MB for 512 rows of 2,048 log-probabilities, of which a beam reads the children in the trie.
 */
import { encodeField, type Field, fieldsOf, graphPart } from './protobuf.ts';

/** Names that the changed graph adds. */
export const WANTED = 'wanted';
export const PICKED = 'picked';

/** Field numbers of onnx.proto3. */
const MODEL_GRAPH = 7;
const GRAPH_OUTPUT = 12;
const VALUE_NAME = 1;

/**
 * The same graph with an input `wanted`, int32 [w] for any w, of positions in the flattened output, and an output `picked`,
 * float32 [w], in place of the output itself.
 * @throws RangeError where the bytes are no model with such an output
 */
export function pickValues(model: Uint8Array, output: string): Uint8Array {
  const fields = fieldsOf(model);
  const graph = fields.filter(({ number }) => number === MODEL_GRAPH).at(-1);
  if (!graph) throw new RangeError('These bytes hold no ONNX graph');
  const parts = fieldsOf(graph.value);
  const kept = parts.filter(({ number, value }) => number !== GRAPH_OUTPUT || nameOf(value) !== output);
  if (kept.length !== parts.length - 1) throw new RangeError(`The ONNX graph has no output ${output}`);
  const flat = 'picked.flat';
  const shape = 'picked.shape';
  const standard = { domain: '', attributes: {} };
  const picking = graphPart(
    {
      nodes: [
        { ...standard, op: 'Reshape', inputs: [output, shape], outputs: [flat] },
        { ...standard, op: 'Gather', inputs: [flat, WANTED], outputs: [PICKED] },
      ],
      initializers: [{ name: shape, shape: [1], type: 'int64', data: BigInt64Array.of(-1n) }],
      inputs: [{ name: WANTED, shape: [-1], type: 'int32' }],
      outputs: [{ name: PICKED, shape: [-1], type: 'float32' }],
    },
    'pick_',
  );
  const changed = Buffer.concat([...kept.map(({ whole }) => whole), picking]);
  return Buffer.concat(
    fields.map((field) => (field === graph ? encodeField(MODEL_GRAPH, changed) : field.whole)),
  );
}

function nameOf(value: Uint8Array): string {
  const name: Field | undefined = fieldsOf(value).find(({ number }) => number === VALUE_NAME);
  return name ? new TextDecoder().decode(name.value) : '';
}
