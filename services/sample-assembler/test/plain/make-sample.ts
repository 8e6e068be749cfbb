/** Builds the TrainingSample of an exposure: what the log says, labels, item and SID as of the request, histories. */
import type { Exposure, HistoryEvent, SampleKind, TrainingSample, UserHistory } from '@onemall/contracts';
import type { ActionKind } from '@onemall/event-time';
import type { Catalogue } from '../../src/stages/catalogue.ts';
import type { HistoryEntry, HistoryKind, UserHistories } from './user-histories.ts';

export type PlainCatalogue = Pick<Catalogue, 'item' | 'sid' | 'sellingItemIds'>;

/** An action that counts for an exposure. */
export interface CountedAction {
  kind: ActionKind;
  timeMs: number;
  /** Price x quantity; 0 for a click. */
  valueCents: number;
  quantity: number;
}

export type Labels = Pick<
  TrainingSample,
  'clicked' | 'clickDelayMs' | 'bought' | 'buyDelayMs' | 'buyValueCents' | 'buyQuantity'
>;

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
  let clickMs: number | null = null;
  let buyMs: number | null = null;
  let buyValueCents = 0;
  let buyQuantity = 0;
  for (const action of actions) {
    if (upTo && orderOfAction(action.kind, action.timeMs) > orderOfAction(upTo.kind, upTo.timeMs)) continue;
    if (action.kind === 'CLICK') clickMs = Math.min(clickMs ?? action.timeMs, action.timeMs);
    else {
      buyMs = Math.min(buyMs ?? action.timeMs, action.timeMs);
      buyValueCents += action.valueCents;
      buyQuantity += action.quantity;
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

const MAX_INT32 = 2_147_483_647;

/** Orders actions by event time, then CLICK before BUY. */
export const orderOfAction = (kind: ActionKind, timeMs: number): number =>
  timeMs * 2 + (kind === 'BUY' ? 1 : 0);

export interface SampleContext {
  catalogue: PlainCatalogue;
  histories: UserHistories;
  /** Request of an exposure that is still known, or undefined. */
  requestOf: (exposureId: string) => string | undefined;
}

export function makeSample(
  exposure: Exposure,
  kind: SampleKind,
  firstPositive: boolean,
  labels: Labels,
  watermarkMs: number,
  context: SampleContext,
): TrainingSample {
  const { catalogue } = context;
  const asOfMs = exposure.requestTimeMs;
  const item = catalogue.item(exposure.itemId, asOfMs);
  return {
    exposure,
    kind,
    firstPositive,
    ...labels,
    sid: catalogue.sid(exposure.itemId, asOfMs),
    item: item && { ...item, sellingItemIds: catalogue.sellingItemIds(exposure.itemId, asOfMs) },
    history: historyBefore(exposure, context),
    watermarkMs,
  };
}

/** The user's latest events before the request, none of the same request or exposure. */
function historyBefore(exposure: Exposure, { catalogue, histories, requestOf }: SampleContext): UserHistory {
  const isOwn = (entry: HistoryEntry): boolean => {
    if (entry.exposureId === null) return false;
    return (
      entry.exposureId === exposure.exposureId ||
      (entry.requestId ?? requestOf(entry.exposureId)) === exposure.requestId
    );
  };
  const events = (kind: HistoryKind): HistoryEvent[] =>
    histories.latest(exposure.userId, kind, exposure.requestTimeMs, isOwn).map(({ itemId, timeMs }) => ({
      itemId,
      eventTimeMs: timeMs,
      category: catalogue.item(itemId, exposure.requestTimeMs)?.category ?? '',
    }));
  return { exposures: events('exposures'), clicks: events('clicks'), buys: events('buys') };
}
