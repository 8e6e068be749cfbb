/**
 * A writer for the part of onnx.proto3 that static graphs need (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), and a
 * reader that finds the fields of a message.
 */

export type OnnxType = 'float32' | 'uint8' | 'int8' | 'int32' | 'int64' | 'bool';
/** TensorProto.DataType */
const DATA_TYPE: Record<OnnxType, number> = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7, bool: 9 };
export const dataTypeOf = (type: OnnxType): number => DATA_TYPE[type];

export type OnnxAttribute =
  | { kind: 'int'; value: number }
  | { kind: 'float'; value: number }
  | { kind: 'ints'; value: readonly number[] }
  | { kind: 'string'; value: string };

export interface OnnxNode {
  op: string;
  /** Empty for the standard operators. */
  domain: string;
  inputs: string[];
  outputs: string[];
  attributes: Record<string, OnnxAttribute>;
}
export interface OnnxTensor {
  name: string;
  shape: readonly number[];
  type: OnnxType;
  data: Float32Array | Int32Array | BigInt64Array | Uint8Array | Int8Array;
}
export interface OnnxValueInfo {
  name: string;
  /** -1: any size. */
  shape: readonly number[];
  type: OnnxType;
}
export interface OnnxModel {
  nodes: readonly OnnxNode[];
  initializers: readonly OnnxTensor[];
  inputs: readonly OnnxValueInfo[];
  outputs: readonly OnnxValueInfo[];
}

const OPSET = 18;
const IR_VERSION = 9;
const text = new TextEncoder();

class Message {
  readonly #parts: Uint8Array[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }
  int(field: number, value: number): this {
    return this.#tag(field, 0).#varint(value);
  }
  float(field: number, value: number): this {
    return this.#tag(field, 5).#append(new Uint8Array(Float32Array.of(value).buffer));
  }
  bytes(field: number, bytes: Uint8Array): this {
    return this.#tag(field, 2).#varint(bytes.length).#append(bytes);
  }
  string(field: number, value: string): this {
    return this.bytes(field, text.encode(value));
  }
  message(field: number, message: Message): this {
    this.#tag(field, 2).#varint(message.#size);
    for (const part of message.#parts) this.#append(part);
    return this;
  }
  encode(): Uint8Array {
    const out = new Uint8Array(this.#size);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  #tag(field: number, wireType: number): this {
    return this.#varint(field * 8 + wireType);
  }
  /** Negative numbers take ten bytes, as 64-bit two's complement. */
  #varint(value: number): this {
    if (value >= 0 && value < 128) return this.#append(Uint8Array.of(value));
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    while (rest > 127n) {
      bytes.push(Number(rest & 127n) | 128);
      rest >>= 7n;
    }
    bytes.push(Number(rest));
    return this.#append(Uint8Array.from(bytes));
  }
  #append(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    return this;
  }
}

function tensorProto({ name, shape, type, data }: OnnxTensor): Message {
  const message = new Message();
  for (const dim of shape) message.int(1, dim);
  return message
    .int(2, DATA_TYPE[type])
    .string(8, name)
    .bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function attributeProto(name: string, attribute: OnnxAttribute): Message {
  const message = new Message().string(1, name);
  switch (attribute.kind) {
    case 'float':
      return message.float(2, attribute.value).int(20, 1);
    case 'int':
      return message.int(3, attribute.value).int(20, 2);
    case 'string':
      return message.string(4, attribute.value).int(20, 3);
    case 'ints':
      for (const value of attribute.value) message.int(8, value);
      return message.int(20, 7);
  }
}

function valueInfoProto({ name, shape, type }: OnnxValueInfo): Message {
  const dims = new Message();
  for (const dim of shape) dims.message(1, dim < 0 ? new Message() : new Message().int(1, dim));
  const tensorType = new Message().int(1, DATA_TYPE[type]).message(2, dims);
  return new Message().string(1, name).message(2, new Message().message(1, tensorType));
}

function nodeProto(node: OnnxNode, name: string): Message {
  const message = new Message();
  for (const input of node.inputs) message.string(1, input);
  for (const output of node.outputs) message.string(2, output);
  message.string(3, name).string(4, node.op);
  for (const [name, attribute] of Object.entries(node.attributes))
    message.message(5, attributeProto(name, attribute));
  if (node.domain !== '') message.string(7, node.domain);
  return message;
}

/** @param prefix of the names of its nodes, which are distinct in a graph */
function graphProto(model: OnnxModel, prefix = ''): Message {
  const graph = new Message();
  model.nodes.forEach((node, i) => {
    graph.message(1, nodeProto(node, `${prefix}${i}_${node.op}`));
  });
  for (const tensor of model.initializers) graph.message(5, tensorProto(tensor));
  for (const input of model.inputs) graph.message(11, valueInfoProto(input));
  for (const output of model.outputs) graph.message(12, valueInfoProto(output));
  return graph;
}

/** Fields that, written behind those of another graph, add nodes, inputs and outputs to it. @param prefix of the names of its nodes */
export const graphPart = (part: OnnxModel, prefix: string): Uint8Array => graphProto(part, prefix).encode();

/** The bytes of an .onnx file. */
export function encodeOnnx(model: OnnxModel): Uint8Array {
  const opset = (domain: string, version: number) => new Message().string(1, domain).int(2, version);
  return new Message()
    .int(1, IR_VERSION)
    .string(2, 'onemall')
    .message(7, graphProto(model).string(2, 'onemall'))
    .message(8, opset('', OPSET))
    .message(8, opset('com.microsoft', 1))
    .encode();
}

export const encodeField = (number: number, bytes: Uint8Array): Uint8Array =>
  new Message().bytes(number, bytes).encode();

/** One field of a message. */
export interface Field {
  number: number;
  /** Its bytes with number and length. */
  whole: Uint8Array;
  /** Of a string, message or packed list; empty for numbers. */
  value: Uint8Array;
}

/** @throws RangeError where the bytes are no message */
export function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new RangeError(`A protobuf message ends within a number, at byte ${at}`);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const from = at;
    const tag = varint();
    const wireType = tag % 8;
    let size = 0;
    if (wireType === 0) varint();
    else if (wireType === 1) size = 8;
    else if (wireType === 2) size = varint();
    else if (wireType === 5) size = 4;
    else throw new RangeError(`No protobuf message: wire type ${wireType} at byte ${from}`);
    const value = bytes.subarray(at, at + size);
    at += size;
    if (at > bytes.length) throw new RangeError(`A protobuf message ends within a field, at byte ${at}`);
    fields.push({ number: Math.floor(tag / 8), whole: bytes.subarray(from, at), value });
  }
  return fields;
}
