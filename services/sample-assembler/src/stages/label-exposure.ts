/** Labels of an exposure from the actions that count for it. */
import type { TrainingSample } from '@onemall/contracts';
import type { ActionKind } from '@onemall/event-time';
import type { KnownActions } from '../state/known-actions.ts';

export type Labels = Pick<
  TrainingSample,
  'clicked' | 'clickDelayMs' | 'bought' | 'buyDelayMs' | 'buyValueCents' | 'buyQuantity'
>;

const MAX_INT32 = 2_147_483_647;

/** Orders actions by event time, then CLICK before BUY. */
export const orderOfAction = (kind: ActionKind, timeMs: number): number =>
  timeMs * 2 + (kind === 'BUY' ? 1 : 0);

/**
 * Labels from the actions up to a moment. At equal times a click comes before a buy, so that a CLICK sample does not
 * depend on whether the buy was read already.
 * @param firstAction of the exposure's linked actions, or -1
 * @param upToOrder the last action's `orderOfAction`; Infinity takes all
 */
export function labelExposure(
  exposureTimeMs: number,
  actions: KnownActions,
  firstAction: number,
  upToOrder: number,
): Labels {
  const { of } = actions.columns;
  let clickMs: number | null = null;
  let buyMs: number | null = null;
  let buyValueCents = 0;
  let buyQuantity = 0;
  for (let slot = firstAction; slot >= 0; slot = of.nextOfExposure[slot]!) {
    const timeMs = of.timeMs[slot]!;
    const kind = actions.kind(slot);
    if (orderOfAction(kind, timeMs) > upToOrder) continue;
    if (kind === 'CLICK') clickMs = Math.min(clickMs ?? timeMs, timeMs);
    else {
      buyMs = Math.min(buyMs ?? timeMs, timeMs);
      buyValueCents += of.valueCents[slot]!;
      buyQuantity += of.quantity[slot]!;
    }
  }
  const delay = (timeMs: number | null): number | null =>
    timeMs === null ? null : Math.max(0, timeMs - exposureTimeMs);
  return {
    clicked: clickMs !== null,
    clickDelayMs: delay(clickMs),
    bought: buyMs !== null,
    buyDelayMs: delay(buyMs),
    // Never more than the schema holds, whatever prices and quantities a log carries.
    buyValueCents: Math.min(buyValueCents, Number.MAX_SAFE_INTEGER),
    buyQuantity: Math.min(buyQuantity, MAX_INT32),
  };
}
