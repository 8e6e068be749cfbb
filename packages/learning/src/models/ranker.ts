/**
 * The ranker: one network with three heads over dense cross features and hashed ids, the reward model of the paper's
 * section 3.3. pCtcvr is trained on all exposures, clicked or not, so that it needs no click model.
 */
import { NUM_DENSE, NUM_IDS } from '@onemall/features';
import { linear, norm } from '../layers/attention.ts';
import { normal, type Ops, zeros } from '../ops.ts';
import type { RankerPreset } from './presets.ts';

/** log1p(value in cents) = VALUE_CENTRE + VALUE_SCALE x output, so that outputs near 0 mean a price of about 30.00. */
const VALUE_CENTRE = 8;
const VALUE_SCALE = 2;
/** Share of a batch in the running variance of the value's residual. */
const VARIANCE_RATE = 0.01;

interface RankerOutputs<T> {
  /** Logits and the scaled log value, [N] each. */
  click: T;
  buy: T;
  value: T;
}

/** Inputs: dense float32 [N, NUM_DENSE], ids int32 [N, NUM_IDS] non-negative. */
function rankerNetwork<T>(ops: Ops<T>, preset: RankerPreset, rows: number): RankerOutputs<T> {
  const dense = ops.input('dense', [rows, NUM_DENSE], 'float32');
  const ids = ops.input('ids', [rows, NUM_IDS], 'int32');
  const table = ops.parameter('id', [preset.idRows, preset.idDim], normal(0.1), { decay: false });
  const embedded = ops.gather(table, ops.modulo(ops.clampIds(ids), preset.idRows));
  let h = ops.concat([dense, ops.reshape(embedded, [rows, NUM_IDS * preset.idDim])], 1);
  preset.hidden.forEach((width, i) => {
    h = ops.silu(withBias(ops, `layer${i}`, norm(ops, `layer${i}.norm`, h), width));
  });
  const out = withBias(ops, 'out', h, 3);
  const column = (i: number): T => ops.reshape(ops.slice(out, [0, i], [rows, 1]), [rows]);
  return { click: column(0), buy: column(1), value: column(2) };
}

function withBias<T>(ops: Ops<T>, name: string, x: T, width: number): T {
  const bias = ops.parameter(`${name}.bias`, [width], zeros, { decay: false });
  return ops.add(linear(ops, `${name}.weight`, x, width), bias);
}

/** Predictions [N]: pCtr, pCtcvr, buyValueCents = E[value | buy] of a log-normal with the running residual variance. */
function predictions<T>(ops: Ops<T>, { click, buy, value }: RankerOutputs<T>): Record<string, T> {
  const variance = ops.buffer('value.variance', [1], zeros);
  const logValue = ops.addScalar(ops.scale(value, VALUE_SCALE), VALUE_CENTRE);
  const half = ops.scale(ops.clip(variance, 0, 4), 0.5);
  // An outcome beyond e^16 cents is no price; without the bound one bad step could publish an infinite value.
  const mean = ops.addScalar(ops.exp(ops.clip(ops.add(logValue, half), 0, 16)), -1);
  return { pCtr: ops.sigmoid(click), pCtcvr: ops.sigmoid(buy), buyValueCents: mean };
}

export interface RankerPass<T> {
  loss: T;
  /** loss, clickLoss, buyLoss, valueLoss: scalars; pCtr, pCtcvr, buyValueCents [B]. */
  metrics: Record<string, T>;
}

/**
 * Loss = BCE(click) + BCE(buy) + squared error of the scaled log1p(value) over the bought.
 * Inputs besides the network's: clicked, bought, value (log1p of cents; 0 where not bought), weight (sums to 1),
 * boughtWeight (0 where not bought, else sums to 1), float32 [B] each.
 */
export function rankerPass<T>(ops: Ops<T>, preset: RankerPreset, batch: number): RankerPass<T> {
  const outputs = rankerNetwork(ops, preset, batch);
  const label = (name: string): T => ops.input(name, [batch], 'float32');
  const [clicked, bought, value, weight, boughtWeight] = [
    label('clicked'),
    label('bought'),
    label('value'),
    label('weight'),
    label('boughtWeight'),
  ] as const;
  const crossEntropy = (logit: T, target: T): T =>
    ops.sum(ops.mul(ops.sub(ops.softplus(logit), ops.mul(logit, target)), weight), [0]);
  const clickLoss = crossEntropy(outputs.click, clicked);
  const buyLoss = crossEntropy(outputs.buy, bought);
  const residual = ops.sub(outputs.value, ops.scale(ops.addScalar(value, -VALUE_CENTRE), 1 / VALUE_SCALE));
  const valueLoss = ops.sum(ops.mul(ops.mul(residual, residual), boughtWeight), [0]);
  const metrics = predictions(ops, outputs);

  // The variance of log1p(value) moves only on batches that hold a buy.
  const variance = ops.buffer('value.variance', [1], zeros);
  const anyBought = ops.sum(boughtWeight, [0], true);
  const seen = ops.scale(ops.reshape(valueLoss, [1]), VALUE_SCALE * VALUE_SCALE);
  const change = ops.scale(ops.sub(seen, variance), VARIANCE_RATE);
  ops.assign('value.variance', ops.add(variance, ops.mul(change, anyBought)));

  const loss = ops.add(ops.add(clickLoss, buyLoss), valueLoss);
  return { loss, metrics: { loss, clickLoss, buyLoss, valueLoss, ...metrics } };
}

/** The published graph: inputs dense and ids, outputs pCtr, pCtcvr, buyValueCents [rows]. */
export function rankerScores<T>(ops: Ops<T>, preset: RankerPreset, rows: number): Record<string, T> {
  return predictions(ops, rankerNetwork(ops, preset, rows));
}
