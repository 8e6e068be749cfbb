/** What an engine needs to train a model: compiled graphs and how their values flow from one to the next. All of it can be sent to a worker. */

import { OnnxGraph } from '../onnx/graph.ts';
import type { Value } from '../onnx/graph-builder.ts';
import type { DType, Initializer, Shape } from '../ops.ts';
import type { AdamWOptions } from '../optimizers/adamw.ts';

export interface TensorSpec {
  name: string;
  shape: Shape;
  dtype: DType;
}

/** A graph whose weights are inputs, with the same names as the engine's tensors. */
export interface ForwardGraph {
  model: Uint8Array;
  /** Weights and buffers that it reads. */
  weights: readonly string[];
  feeds: readonly TensorSpec[];
  outputs: readonly TensorSpec[];
}

/** Loss and gradients of one batch shape. */
export interface GradientGraph extends ForwardGraph {
  /** Figures for the caller, among `outputs`. */
  metrics: readonly string[];
  /** Parameter -> output with its gradient. */
  dense: Readonly<Record<string, string>>;
  /** Tables whose gradient leaves the graph as rows that are to be added up. */
  tables: readonly { table: string; uses: readonly { ids: string; rows: string }[] }[];
  /** Buffer -> output with its next value. */
  assigned: Readonly<Record<string, string>>;
  /** Parameters that have no part in the loss of this graph; their gradient is zero. */
  unused: readonly string[];
  nodeCount: number;
}

export interface ParameterTensor {
  name: string;
  shape: Shape;
  init: Initializer;
}
export interface TrainedTensor extends ParameterTensor {
  /** Whether weight decay applies. */
  decay: boolean;
  /** Multiplies the learning rate. */
  rate: number;
}
export interface TrainingProgram {
  parameters: readonly TrainedTensor[];
  buffers: readonly ParameterTensor[];
  adamw: AdamWOptions;
}

/** A model's training pass: what it returns by name, and the scalar that is minimised. */
export interface ModelPass {
  loss: Value;
  metrics: Readonly<Record<string, Value>>;
}

const outputSpec = (name: string, value: Value): TensorSpec => ({
  name,
  shape: value.shape,
  dtype: value.type === 'int32' ? 'int32' : 'float32',
});

/** Compiles a model without gradients. */
export function compileForward(build: (ops: OnnxGraph) => Readonly<Record<string, Value>>): ForwardGraph {
  const graph = new OnnxGraph();
  const outputs = Object.entries(build(graph)).map(([name, value]) => {
    graph.builder.output(name, value);
    return outputSpec(name, value);
  });
  return {
    model: graph.builder.encode(),
    weights: [...graph.parameters.keys(), ...graph.buffers.keys()],
    feeds: [...graph.inputs.values()],
    outputs,
  };
}

/** A file that needs nothing else: weights are constants, operators are standard ones. */
export function compilePublished(
  weights: ReadonlyMap<string, Float32Array>,
  build: (ops: OnnxGraph) => Readonly<Record<string, Value>>,
): Uint8Array {
  const graph = new OnnxGraph({ weights, portable: true });
  for (const [name, value] of Object.entries(build(graph))) graph.builder.output(name, value);
  return graph.builder.encode();
}

/** Compiles loss and gradients of a model; `parameters` are all that the optimizer knows. */
export function compileGradient(build: (ops: OnnxGraph) => ModelPass): {
  gradient: GradientGraph;
  graph: OnnxGraph;
} {
  const graph = new OnnxGraph();
  const g = graph.builder;
  const { loss, metrics } = build(graph);
  const gradients = graph.backward(loss);
  const outputs: TensorSpec[] = [];
  const returnAs = (name: string, value: Value): string => {
    g.output(name, value);
    outputs.push(outputSpec(name, value));
    return name;
  };
  for (const [name, value] of Object.entries(metrics)) returnAs(name, value);
  const dense = Object.fromEntries(
    [...gradients.dense].map(([name, value]) => [name, returnAs(`dense.${name}`, value)]),
  );
  const assigned = Object.fromEntries(
    [...graph.assigned].map(([name, value]) => [name, returnAs(`assigned.${name}`, value)]),
  );
  // One history element feeds several tables: its gradient leaves the graph once.
  const returned = new Map<string, string>();
  const once = (kind: string, value: Value): string => {
    let name = returned.get(value.name);
    if (!name) {
      name = returnAs(`${kind}.${returned.size}`, value);
      returned.set(value.name, name);
    }
    return name;
  };
  const tables = [...Map.groupBy(gradients.rows, (r) => r.table)].map(([table, uses]) => ({
    table,
    uses: uses.map((use) => ({ ids: once('ids', use.ids), rows: once('rows', use.rows) })),
  }));
  const withGradient = new Set([...Object.keys(dense), ...tables.map((t) => t.table)]);
  const gradient: GradientGraph = {
    model: g.encode(),
    weights: [...graph.parameters.keys(), ...graph.buffers.keys()],
    feeds: [...graph.inputs.values()],
    outputs,
    metrics: Object.keys(metrics),
    dense,
    tables,
    assigned,
    unused: [...graph.parameters.keys()].filter((name) => !withGradient.has(name)),
    nodeCount: g.nodeCount,
  };
  return { gradient, graph };
}

/** The optimizer over every parameter of a model. @param rate multiplies the learning rate of a parameter */
export function compileOptimizer(
  graph: OnnxGraph,
  adamw: AdamWOptions,
  rate: (parameter: string) => number,
): TrainingProgram {
  return {
    parameters: [...graph.parameters.values()].map((p) => ({ ...p, rate: rate(p.name) })),
    buffers: [...graph.buffers.values()],
    adamw,
  };
}
