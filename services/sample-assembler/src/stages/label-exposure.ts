/** Labels of an exposure from the actions linked to it. */
import { LabelSum, type Labels, orderOfAction } from '@onemall/event-time';
import type { KnownActions } from '../state/known-actions.ts';

/** Of most exposures. */
const NO_LABELS: Labels = Object.freeze(new LabelSum().labels(0));

/**
 * @param firstAction of the exposure's linked actions, or -1
 * @param upToOrder `orderOfAction` of the last one that counts; Infinity takes all
 */
export function labelLinked(
  exposureTimeMs: number,
  actions: KnownActions,
  firstAction: number,
  upToOrder: number,
): Labels {
  if (firstAction < 0) return NO_LABELS;
  const { of } = actions.columns;
  const sum = new LabelSum();
  for (let slot = firstAction; slot >= 0; slot = of.nextOfExposure[slot]!) {
    const kind = actions.kind(slot);
    const timeMs = of.timeMs[slot]!;
    if (orderOfAction(kind, timeMs) <= upToOrder)
      sum.add(kind, timeMs, of.valueCents[slot]!, of.quantity[slot]!);
  }
  return sum.labels(exposureTimeMs);
}
