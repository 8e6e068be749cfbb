/** Rows that stand for themselves: exposure, click and buy rows, with or without made-up exposures. */
import type { SeededRandom } from '@onemall/service-kit';
import type { Mapping } from '../mapping.ts';
import { actionOf, exposureOf, type LogEvent } from './events.ts';
import type { LogRow } from './map-row.ts';

/** Items that negatives are drawn from: those of the latest actions, so that popular items come up more often. */
const REMEMBERED = 20_000;

/** @returns a function from row to events, in the order of the log */
export function rowConverter(mapping: Mapping, random: SeededRandom): (row: LogRow) => LogEvent[] {
  const { scenario, synthesizeExposures } = mapping;
  const recent: string[] = [];
  let at = 0;
  return (row) => {
    if (row.kind === 'ignored') return [];
    if (row.kind === 'exposure') return [loggedExposure(row, scenario)];
    if (!synthesizeExposures) return [actionOf(row, null)];

    const { negatives, shownBeforeMs } = synthesizeExposures;
    const timeMs = Math.max(0, row.timeMs - shownBeforeMs);
    const others = drawNegatives(recent, row.item, negatives, random);
    const page = [...others];
    const position = random.int(page.length + 1);
    page.splice(position, 0, row.item);
    recent[at] = row.item;
    at = (at + 1) % REMEMBERED;
    const requestId = `synthetic-${row.id}`;
    const exposures = page.map((itemId, place): LogEvent => {
      const priceCents = place === position ? row.priceCents : null;
      const event = exposureOf(row, scenario, { itemId, requestId, position: place, timeMs, priceCents });
      return { ...event, synthetic: place === position ? 'positive' : 'negative' };
    });
    const exposureId = `${requestId}:${position}`;
    return [...exposures, actionOf(row, { exposureId, timeMs, priceCents: row.priceCents })];
  };
}

function loggedExposure(row: LogRow, scenario: string): LogEvent {
  const requestId = row.requestId ?? `request-${row.id}`;
  const { timeMs, priceCents } = row;
  const event = exposureOf(row, scenario, {
    itemId: row.item,
    requestId,
    position: row.position ?? 0,
    timeMs,
    priceCents,
  });
  if (row.exposureId !== null) event.value.exposureId = row.exposureId;
  return event;
}

function drawNegatives(
  recent: readonly string[],
  positive: string,
  count: number,
  random: SeededRandom,
): string[] {
  const chosen = new Set<string>();
  for (let tries = 0; recent.length > 0 && chosen.size < count && tries < 4 * count; tries++) {
    const item = random.pick(recent);
    if (item !== positive) chosen.add(item);
  }
  return [...chosen];
}
