/** What the log becomes: events of the three input topics with the times of the log. */
import type { Buy, Click, Exposure } from '@onemall/contracts';
import type { ItemTexts, LogRow } from './map-row.ts';

interface Timed {
  /** Time of the log. */
  timeMs: number;
  /** Order among equal times: exposures before clicks before buys, then as in the log. */
  order: number;
  /** What the row says of the item. */
  texts: ItemTexts;
}
export type LogEvent = Timed &
  (
    | { topic: 'exposures'; value: Exposure; synthetic?: 'positive' | 'negative' }
    /** shownMs: time of the exposure that explains it, where the log tells one. */
    | { topic: 'clicks'; value: Click; shownMs: number | null }
    | { topic: 'buys'; value: Buy; shownMs: number | null }
  );

const RANK = { exposures: 0, clicks: 1, buys: 2 } as const;
export const compareEvents = (a: LogEvent, b: LogEvent): number =>
  a.timeMs - b.timeMs || RANK[a.topic] - RANK[b.topic] || a.order - b.order;

export interface ShownAt {
  exposureId: string;
  timeMs: number;
  priceCents: number | null;
}

/** The click or buy of a row. */
export function actionOf(row: LogRow, shown: ShownAt | null): LogEvent {
  const base = {
    actionId: row.actionId ?? `${row.kind}-${row.id}`,
    exposureId: row.exposureId ?? shown?.exposureId ?? null,
    userId: row.user,
    itemId: row.item,
    eventTimeMs: row.timeMs,
  };
  const timed = { timeMs: row.timeMs, order: row.seq, texts: row.texts, shownMs: shown?.timeMs ?? null };
  if (row.kind === 'click') return { ...timed, topic: 'clicks', value: base };
  return {
    ...timed,
    topic: 'buys',
    value: {
      ...base,
      priceCents: row.priceCents ?? shown?.priceCents ?? 0,
      quantity: row.quantity,
    },
  };
}

export function exposureOf(
  row: LogRow,
  scenario: string,
  e: { itemId: string; requestId: string; position: number; timeMs: number; priceCents: number | null },
): Extract<LogEvent, { topic: 'exposures' }> {
  return {
    timeMs: e.timeMs,
    order: row.seq,
    texts: row.texts,
    topic: 'exposures',
    value: {
      exposureId: `${e.requestId}:${e.position}`,
      userId: row.user,
      itemId: e.itemId,
      scenario,
      eventTimeMs: e.timeMs,
      requestId: e.requestId,
      requestTimeMs: e.timeMs,
      position: e.position,
      watchMs: row.watchMs,
      priceCents: e.priceCents ?? 0,
      requestFeatures: { ints: [], floats: [] },
    },
  };
}
