/** Labels of an exposure from the actions that count for it. */
import type { ActionKind } from './attribution.ts';

export interface Labels {
  clicked: boolean;
  /** Of the first click; never below 0. */
  clickDelayMs: number | null;
  bought: boolean;
  buyDelayMs: number | null;
  buyValueCents: number;
  buyQuantity: number;
}

/** An action that counts for an exposure. */
export interface CountedAction {
  kind: ActionKind;
  timeMs: number;
  /** Price x quantity; 0 for a click. */
  valueCents: number;
  quantity: number;
}

const MAX_INT32 = 2_147_483_647;

/** Orders actions by event time, then CLICK before BUY. */
export const orderOfAction = (kind: ActionKind, timeMs: number): number =>
  timeMs * 2 + (kind === 'BUY' ? 1 : 0);

/** Labels as actions are added to them, in any order. */
export class LabelSum {
  #clickMs = Number.POSITIVE_INFINITY;
  #buyMs = Number.POSITIVE_INFINITY;
  #valueCents = 0;
  #quantity = 0;

  add(kind: ActionKind, timeMs: number, valueCents: number, quantity: number): void {
    if (kind === 'CLICK') {
      this.#clickMs = Math.min(this.#clickMs, timeMs);
      return;
    }
    this.#buyMs = Math.min(this.#buyMs, timeMs);
    this.#valueCents += valueCents;
    this.#quantity += quantity;
  }

  labels(exposureTimeMs: number): Labels {
    const delay = (timeMs: number): number | null =>
      timeMs === Number.POSITIVE_INFINITY ? null : Math.max(0, timeMs - exposureTimeMs);
    const clickDelayMs = delay(this.#clickMs);
    const buyDelayMs = delay(this.#buyMs);
    return {
      clicked: clickDelayMs !== null,
      clickDelayMs,
      bought: buyDelayMs !== null,
      buyDelayMs,
      // Never more than the schema holds, whatever prices and quantities a log carries.
      buyValueCents: Math.min(this.#valueCents, Number.MAX_SAFE_INTEGER),
      buyQuantity: Math.min(this.#quantity, MAX_INT32),
    };
  }
}

/**
 * Labels from the actions up to a moment. At equal times a click comes before a buy, so that a CLICK sample does not
 * depend on whether the buy was read already.
 * @param upTo null takes all
 */
export function labelExposure(
  exposureTimeMs: number,
  actions: readonly CountedAction[],
  upTo: { kind: ActionKind; timeMs: number } | null,
): Labels {
  const sum = new LabelSum();
  const last = upTo ? orderOfAction(upTo.kind, upTo.timeMs) : Number.POSITIVE_INFINITY;
  for (const { kind, timeMs, valueCents, quantity } of actions)
    if (orderOfAction(kind, timeMs) <= last) sum.add(kind, timeMs, valueCents, quantity);
  return sum.labels(exposureTimeMs);
}
