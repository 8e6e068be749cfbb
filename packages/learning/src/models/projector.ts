/** The trainable part of the item encoder: frozen text vectors in, unit vectors in which paired items lie close out. */
import { linear } from '../layers/attention.ts';
import { contrastiveLoss, unitLength } from '../layers/losses.ts';
import { normal, type Ops, zeros } from '../ops.ts';

export interface ProjectorShape {
  inDim: number;
  hidden: number;
  outDim: number;
}

/** z = unit(W x + V silu(U x + b)): the straight path keeps what the frozen encoder knows, the bent one adds to it. [N, outDim] */
export function projectorNetwork<T>(ops: Ops<T>, { hidden, outDim }: ProjectorShape, x: T): T {
  const bias = ops.parameter('hidden.bias', [hidden], zeros, { decay: false });
  const bent = ops.silu(ops.add(linear(ops, 'hidden.weight', x, hidden), bias));
  // Starts at zero, so that training begins from a random projection, which keeps distances.
  const back = ops.parameter('out.weight', [hidden, outDim], normal(1e-3));
  return unitLength(ops, ops.add(linear(ops, 'straight.weight', x, outDim), ops.matmul(bent, back)));
}

/**
 * InfoNCE over a batch of pairs, both ways.
 * Inputs: left, right float32 [B, inDim]; leftKeys, rightKeys int32 [B], equal for equal vectors, which are no negatives of
 * each other; leftLogQ, rightLogQ [B] log share of the item among all pairs.
 */
export function projectorPass<T>(
  ops: Ops<T>,
  shape: ProjectorShape,
  batch: number,
  temperature: number,
): { loss: T; metrics: Record<string, T> } {
  const side = (name: string) => ({
    vectors: projectorNetwork(ops, shape, ops.input(name, [batch, shape.inDim], 'float32')),
    keys: ops.input(`${name}Keys`, [batch], 'int32'),
    logQ: ops.input(`${name}LogQ`, [batch], 'float32'),
  });
  const [left, right] = [side('left'), side('right')];
  const weights = ops.constant(new Float32Array(batch).fill(1 / batch), [batch]);
  const towards = (from: typeof left, to: typeof left) =>
    contrastiveLoss(
      ops,
      { users: from.vectors, items: to.vectors, itemKeys: to.keys, logQ: to.logQ, weights },
      temperature,
    );
  const [there, back] = [towards(left, right), towards(right, left)];
  const loss = ops.scale(ops.add(there.loss, back.loss), 0.5);
  const hits = ops.scale(ops.sum(ops.add(there.hits, back.hits), [0]), 0.5 / batch);
  return { loss, metrics: { loss, hits } };
}
