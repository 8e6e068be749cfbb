/** For packages that build ONNX graphs of their own. Import it as @onemall/learning/onnx. */
export { cpuSession } from './engine/ort-sessions.ts';
export { GraphBuilder, int, type Value } from './onnx/graph-builder.ts';
