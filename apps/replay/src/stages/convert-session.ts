/**
 * Sessions whose lists of shown items are only known from later rows (a result list is logged with the clickout that
 * ended it). The list of a row belongs to the rows since the list before it: it counts as shown `shownBeforeMs` before
 * the first of them that acts on one of its items, at the latest before its own row, and never before the row that
 * ended the list before it. So exposures precede the clicks and buys that they explain.
 */
import type { Mapping } from '../mapping.ts';
import { actionOf, exposureOf, type LogEvent, type ShownAt } from './events.ts';
import { type LogRow, RowError } from './map-row.ts';

export interface SessionEvents {
  events: LogEvent[];
  /** Clicks and buys on items that no list of the session shows. */
  withoutList: number;
  /** Rows whose own item is not in their own list: the action is left out, the list is kept. */
  bad: { row: LogRow; error: RowError }[];
}

/** @param rows one session in order of time */
export function convertSession(rows: readonly LogRow[], mapping: Mapping): SessionEvents {
  const shownBeforeMs = mapping.impressions?.shownBeforeMs ?? 0;
  const out: SessionEvents = { events: [], withoutList: 0, bad: [] };
  /** The latest list that showed an item. */
  const shown = new Map<string, ShownAt>();
  let segment: LogRow[] = [];
  let previousEndMs = Number.NEGATIVE_INFINITY;

  const act = (row: LogRow): void => {
    if (row.kind !== 'click' && row.kind !== 'buy') return;
    const at = shown.get(row.item) ?? null;
    if (row.list && !row.list.items.includes(row.item)) {
      const column = mapping.item;
      out.bad.push({ row, error: new RowError(column, row.item, 'an item of the list in the same row') });
      return;
    }
    if (!at && row.exposureId === null) out.withoutList++;
    out.events.push(actionOf(row, at));
  };

  for (const row of rows) {
    segment.push(row);
    if (!row.list) continue;
    const inList = new Set(row.list.items);
    const first = segment.find((r) => r.kind !== 'ignored' && inList.has(r.item)) ?? row;
    const timeMs = Math.max(0, first.timeMs - shownBeforeMs, Math.min(previousEndMs + 1, first.timeMs));
    const requestId = row.requestId ?? `list-${row.id}`;
    row.list.items.forEach((itemId, position) => {
      const priceCents = row.list?.pricesCents?.[position] ?? null;
      out.events.push(exposureOf(row, mapping.scenario, { itemId, requestId, position, timeMs, priceCents }));
      shown.set(itemId, { exposureId: `${requestId}:${position}`, timeMs, priceCents });
    });
    for (const r of segment) act(r);
    segment = [];
    previousEndMs = row.timeMs;
  }
  for (const r of segment) act(r);
  return out;
}
