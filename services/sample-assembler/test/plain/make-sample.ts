/** Builds the TrainingSample of an exposure: what the log says, labels, item and SID as of the request, histories. */
import type { Exposure, HistoryEvent, SampleKind, TrainingSample, UserHistory } from '@onemall/contracts';
import type { Labels } from '@onemall/event-time';
import type { Catalogue } from '../../src/stages/catalogue.ts';
import type { HistoryEntry, HistoryKind, UserHistories } from './user-histories.ts';

export type PlainCatalogue = Pick<Catalogue, 'item' | 'sid' | 'sellingItemIds'>;

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
