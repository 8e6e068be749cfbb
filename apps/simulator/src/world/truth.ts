/**
 * The ground truth: how likely a user clicks what is shown and buys what was clicked.
 *
 *   click = sigmoid(b_c + a_c(u) + alpha_c <want_u, z_i> + gamma_c q_c(i) - kappa_c beta_u dp_i - delta ln(1 + position))
 *   buy | click = sigmoid(b_b + a_b(u) + alpha_b <want_u, z_i> + gamma_b q_b(i) - kappa_b beta_u dp_i)
 *
 * dp_i is ln price minus the usual ln price of the topic, beta_u the user's price sensitivity; (a_c, a_b) and (q_c, q_b)
 * are correlated by `correlation`.
 */
import type { Shown } from './catalogue.ts';
import { dotRow } from './latent.ts';
import type { WorldSpec } from './spec.ts';
import type { User } from './users.ts';

/** Exact, not estimated. Delays never pass a window, so these are also the chances inside the attribution windows. */
export interface TrueScore {
  /** Chance of a click at position 0. */
  pCtr: number;
  /** Chance of a click and a buy. */
  pCtcvr: number;
  /** Expected paid value of the exposure: pCtcvr x price x MEAN_QUANTITY, minor units. */
  expectedValueCents: number;
}

/** A buy takes two pieces with this chance, else one. */
export const TWO_PIECES = 0.15;
export const MEAN_QUANTITY = 1 + TWO_PIECES;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Inner product of what the user wants and the item, in [-1, 1]; 0 when taste is off. */
export const affinity = (spec: WorldSpec, want: Float32Array, s: Shown): number =>
  spec.options.taste ? dotRow(want, s.latent, s.row) : 0;

export function clickProbability(
  spec: WorldSpec,
  user: User,
  s: Shown,
  position: number,
  match: number,
): number {
  const { click, options, positionBias } = spec;
  let x = click.bias + user.clickPropensity + click.affinity * match + click.quality * s.clickQuality;
  if (options.priceSensitivity) x -= click.price * user.priceSensitivity * s.relativePrice;
  if (options.positionBias) x -= positionBias * Math.log(1 + position);
  return sigmoid(x);
}

export function buyProbability(spec: WorldSpec, user: User, s: Shown, match: number): number {
  if (!s.sells) return 0;
  const { buy, options } = spec;
  let x = buy.bias + user.buyPropensity + buy.affinity * match + buy.quality * s.buyQuality;
  if (options.priceSensitivity) x -= buy.price * user.priceSensitivity * s.relativePrice;
  return sigmoid(x);
}

/** @param priceCents what is paid for one piece */
export function trueScore(
  spec: WorldSpec,
  user: User,
  want: Float32Array,
  shown: Shown,
  priceCents: number,
): TrueScore {
  const match = affinity(spec, want, shown);
  const pCtr = clickProbability(spec, user, shown, 0, match);
  const pCtcvr = pCtr * buyProbability(spec, user, shown, match);
  return { pCtr, pCtcvr, expectedValueCents: pCtcvr * priceCents * MEAN_QUANTITY };
}
