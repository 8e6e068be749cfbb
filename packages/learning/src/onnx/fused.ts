/**
 * Operations for which onnxruntime's CPU provider has one kernel, with their gradients. Each reads and writes its large tensors
 * once where a chain of elementary nodes would do so four to eight times. Portable graphs use standard operators only.
 */
import { float, type GraphBuilder, int, type Value } from './graph-builder.ts';

/** Gradients of the inputs from the gradient of the result; null where there is none. */
export type VectorJacobianProduct = (gradient: Value) => (Value | null)[];
export interface Fused {
  y: Value;
  vjp: VectorJacobianProduct;
}

const RMS_EPSILON = 1e-6;
const LAYER_EPSILON = 1e-5;
const lastKept = (x: Value): number[] => [...x.shape.slice(0, -1), 1];

/** See `Ops.rmsNorm`. */
export function rmsNorm(g: GraphBuilder, x: Value, gain: Value): Fused {
  let y: Value;
  let inverse: Value;
  if (g.portable) {
    const meanSquare = g.reduce('ReduceMean', g.mul(x, x), [-1], true);
    inverse = g.unary('Reciprocal', g.unary('Sqrt', g.add(meanSquare, g.float(RMS_EPSILON))));
    y = g.mul(g.mul(x, inverse), gain);
  } else
    [y, inverse] = g.emitMany(
      'SimplifiedLayerNormalization',
      [x, gain],
      [
        { shape: x.shape, type: 'float32' },
        { shape: lastKept(x), type: 'float32' },
      ],
      { axis: int(-1), epsilon: float(RMS_EPSILON), stash_type: int(1) },
    ) as [Value, Value];
  return {
    y,
    vjp: (d) => {
      const normed = g.mul(x, inverse);
      const dNormed = g.mul(d, gain);
      const along = g.reduce('ReduceMean', g.mul(dNormed, normed), [-1], true);
      return [
        x.needsGradient ? g.mul(inverse, g.sub(dNormed, g.mul(normed, along))) : null,
        g.unbroadcast(g.mul(d, normed), gain.shape),
      ];
    },
  };
}

/** See `Ops.layerNorm`. */
export function layerNorm(g: GraphBuilder, x: Value, gain: Value, bias: Value): Fused {
  const [y, mean, inverse] = g.emitMany(
    'LayerNormalization',
    [x, gain, bias],
    [
      { shape: x.shape, type: 'float32' },
      { shape: lastKept(x), type: 'float32' },
      { shape: lastKept(x), type: 'float32' },
    ],
    { axis: int(-1), epsilon: float(LAYER_EPSILON), stash_type: int(1) },
  ) as [Value, Value, Value];
  return {
    y,
    vjp: (d) => {
      const normed = g.mul(g.sub(x, mean), inverse);
      const dNormed = g.mul(d, gain);
      const along = g.reduce('ReduceMean', g.mul(dNormed, normed), [-1], true);
      const offset = g.reduce('ReduceMean', dNormed, [-1], true);
      return [
        x.needsGradient ? g.mul(inverse, g.sub(g.sub(dNormed, offset), g.mul(normed, along))) : null,
        g.unbroadcast(g.mul(d, normed), gain.shape),
        g.unbroadcast(d, bias.shape),
      ];
    },
  };
}

/** See `Ops.pickLogSoftmax`; d/dx = (one-hot - softmax) d. */
export function pickLogSoftmax(g: GraphBuilder, x: Value, ids: Value): Fused {
  const n = x.shape[0]!;
  const column = g.reshape(ids, [n, 1]);
  const probabilities = g.emit('Softmax', [x], x.shape, x.type, { axis: int(-1) });
  const logs = g.emit('LogSoftmax', [x], x.shape, x.type, { axis: int(-1) });
  const own = g.emit('GatherElements', [logs, column], [n, 1], x.type, { axis: int(1) });
  return {
    y: g.reshape(own, [n]),
    vjp: (d) => {
      const share = g.reshape(d, [n, 1]);
      const away = g.mul(probabilities, g.unary('Neg', share));
      // Each row has one own column, so nothing is added twice and nothing can race.
      const atOwn = g.mul(share, g.sub(g.float(1), g.unary('Exp', own)));
      return [g.emit('ScatterElements', [away, column, atOwn], x.shape, x.type, { axis: int(1) })];
    },
  };
}
