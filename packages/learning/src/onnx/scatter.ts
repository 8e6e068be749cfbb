/**
 * Adds gradient rows up to the gradient of an embedding table. To be run by a session with one thread: onnxruntime's CPU
 * ScatterND with reduction "add" splits the rows among threads without locking, and additions to one row get lost.
 */
import { GraphBuilder } from './graph-builder.ts';

/**
 * @param shape [V, D] of the table
 * @param counts rows of each use of the table
 * @returns a graph with inputs ids.<i> int32 [counts[i]] and rows.<i> float32 [counts[i], D], output gradient float32 [V, D]
 */
export function scatterGraph(shape: readonly number[], counts: readonly number[]): Uint8Array {
  const g = new GraphBuilder({ portable: true });
  const dim = shape[1]!;
  let sum = g.zeros(shape);
  counts.forEach((count, i) => {
    const ids = g.cast(g.reshape(g.input(`ids.${i}`, [count], 'int32'), [count, 1]), 'int64');
    const rows = g.input(`rows.${i}`, [count, dim], 'float32');
    sum = g.emit('ScatterND', [sum, ids, rows], shape, 'float32', {
      reduction: { kind: 'string', value: 'add' },
    });
  });
  g.output('gradient', sum);
  return g.encode();
}
