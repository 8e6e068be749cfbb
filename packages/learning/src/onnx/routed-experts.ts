/**
 * The mixture of experts for published graphs: each token visits its own experts only. Tokens are sorted by expert and split
 * into parts whose sizes are known when the graph runs, so nothing is dropped and nothing is computed in vain. The result is
 * that of `mixtureOfExperts` with a slot for every token; it has no gradient.
 */
import { normal, zeros } from '../ops.ts';
import type { OnnxGraph } from './graph.ts';
import { int, type Value } from './graph-builder.ts';

/** @param x [N, D] @returns [N, D] */
export function routedExperts(
  graph: OnnxGraph,
  name: string,
  x: Value,
  { experts, active, ffnDim }: { experts: number; active: number; ffnDim: number },
): Value {
  const { builder: g } = graph;
  const [n, dim] = x.shape as [number, number];
  const up = graph.parameter(`${name}.up`, [experts, dim, ffnDim], normal(1 / Math.sqrt(dim)));
  const down = graph.parameter(`${name}.down`, [experts, ffnDim, dim], normal(1 / Math.sqrt(ffnDim)));
  const of = (weights: Value, e: number): Value => {
    const [, rows, columns] = weights.shape as [number, number, number];
    return g.reshape(g.slice(weights, [e, 0, 0], [1, rows, columns]), [rows, columns]);
  };
  const feedForward = (tokens: Value, e: number): Value => {
    const inner = g.emit('MatMul', [tokens, of(up, e)], [-1, ffnDim], 'float32');
    const gated = g.emit(
      'Mul',
      [inner, g.emit('Sigmoid', [inner], [-1, ffnDim], 'float32')],
      [-1, ffnDim],
      'float32',
    );
    return g.emit('MatMul', [gated, of(down, e)], [-1, dim], 'float32');
  };
  if (experts === 1) return { ...feedForward(x, 0), shape: [n, dim] };

  const router = graph.parameter(`${name}.router`, [dim, experts], normal(1 / Math.sqrt(dim)));
  const bias = graph.buffer(`${name}.bias`, [experts], zeros);
  const scores = g.emit('Softmax', [g.matmul(x, router, false, false)], [n, experts], 'float32', {
    axis: int(-1),
  });
  // Equal scores go to the lower index, as in training.
  const [, chosen] = g.emitMany(
    'TopK',
    [g.add(scores, bias), g.int64([active])],
    [
      { shape: [n, active], type: 'float32' },
      { shape: [n, active], type: 'int64' },
    ],
    { axis: int(-1), largest: int(1), sorted: int(1) },
  ) as [Value, Value];
  const gates = g.emit('GatherElements', [scores, chosen], [n, active], 'float32', { axis: int(1) });
  const shares = g.div(gates, g.reduce('ReduceSum', gates, [1], true));

  const visits = n * active;
  const expertOf = g.reshape(chosen, [visits]);
  const counting = (length: number): Value => g.int64(Array.from({ length }, (_, i) => i));
  // One key per visit, ascending by expert and then by place; exact in float32 up to 2^24.
  const key = g.add(g.mul(expertOf, g.int64([visits])), counting(visits));
  const order = ascending(graph, g.cast(key, 'float32'), visits);
  const counts = g.reduce(
    'ReduceSum',
    g.emit(
      'Cast',
      [g.emit('Equal', [g.reshape(expertOf, [visits, 1]), counting(experts)], [visits, experts], 'bool')],
      [visits, experts],
      'int64',
      { to: int(7) },
    ),
    [0],
    false,
  );
  const sorted = g.rows(x, g.div(order, g.int64([active])));
  const parts = g.emitMany(
    'Split',
    [sorted, counts],
    Array.from({ length: experts }, () => ({ shape: [-1, dim], type: 'float32' as const })),
    { axis: int(0) },
  );
  const computed = g.emit(
    'Concat',
    parts.map((part, e) => feedForward(part, e)),
    [visits, dim],
    'float32',
    { axis: int(0) },
  );
  const placeOf = ascending(graph, g.cast(order, 'float32'), visits);
  const returned = g.reshape(g.rows(computed, placeOf), [n, active, dim]);
  return g.reduce('ReduceSum', g.mul(returned, g.reshape(shares, [n, active, 1])), [1], false);
}

/** Indices that sort x [n]. */
function ascending({ builder: g }: OnnxGraph, x: Value, n: number): Value {
  return g.emitMany(
    'TopK',
    [x, g.int64([n])],
    [
      { shape: [n], type: 'float32' },
      { shape: [n], type: 'int64' },
    ],
    { axis: int(0), largest: int(0), sorted: int(1) },
  )[1]!;
}
