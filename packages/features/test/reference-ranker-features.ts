/** The ranker's features as their definitions say, written out candidate by candidate: what RankerRequest is held against. */
import type { HistoryEvent, ItemFeatures } from '@onemall/contracts';
import { hashFeature, priceBucket, type RankerFeatures, type RequestContext } from '../src/index.ts';

export function referenceFeatures(
  request: RequestContext,
  itemId: string,
  item: ItemFeatures,
): RankerFeatures {
  const { requestTimeMs, history } = request;
  const before = (events: Iterable<HistoryEvent>) => [...events].filter((e) => e.eventTimeMs < requestTimeMs);
  const behaviours = [before(history.exposures), before(history.clicks), before(history.buys)] as const;
  const clicks = behaviours[1];
  const recency = (timeMs: number | undefined) =>
    timeMs === undefined || timeMs > requestTimeMs
      ? 0
      : Math.max(0, 1 - Math.log2(1 + (requestTimeMs - timeMs) / 1000) / 32);
  const newest = (events: readonly HistoryEvent[]) =>
    recency(events.length === 0 ? undefined : events.reduce((t, e) => Math.max(t, e.eventTimeMs), -Infinity));
  const rate = (hits: number, of: number) => Math.min(1, (hits + 0.5) / (of + 5));

  const sameCategory = behaviours.map((events) => events.filter((e) => isSameCategory(e, item)));
  const sameItem = behaviours.map((events) => events.filter((e) => e.itemId === itemId));
  const selling = new Set(item.sellingItemIds);
  const sold = behaviours.map((events) => events.filter((e) => selling.has(e.itemId)).length);
  const all = behaviours.map((events) => events.length);
  const inCategory = sameCategory.map((events) => events.length);
  const dayFraction = (requestTimeMs % 86_400_000) / 86_400_000;

  const dense = Float32Array.from([
    ...all.map(Math.log1p),
    ...inCategory.map(Math.log1p),
    ...inCategory.map((n, b) => n / Math.max(1, all[b]!)),
    ...sameItem.map((events) => Math.log1p(events.length)),
    ...behaviours.map(newest),
    ...sameCategory.map(newest),
    ...sameItem.map(newest),
    rate(all[1]!, all[0]!),
    rate(inCategory[1]!, inCategory[0]!),
    rate(all[2]!, all[1]!),
    rate(inCategory[2]!, inCategory[1]!),
    Math.log1p(sold[1]!),
    Math.log1p(sold[2]!),
    Math.log2(1 + item.priceCents) / 32,
    recency(item.validFromMs),
    Math.min(1, item.tags.length / 4),
    Math.log1p(selling.size),
    Math.sin(2 * Math.PI * dayFraction),
    Math.cos(2 * Math.PI * dayFraction),
  ]);
  const clickedCategory = clicks.reduce<HistoryEvent | null>(
    (best, e) => (best && best.eventTimeMs >= e.eventTimeMs ? best : e),
    null,
  )?.category;
  const ids = Int32Array.of(
    hashFeature('item', itemId),
    hashFeature('category', item.category),
    hashFeature('seller', item.sellerId),
    hashFeature('scenario', request.scenario),
    hashFeature('priceBucket', String(priceBucket(item.priceCents))),
    hashFeature('tag', item.tags[0] ?? ''),
    hashFeature('tag', item.tags[1] ?? ''),
    hashFeature('scenarioCategory', `${request.scenario}\0${item.category}`),
    hashFeature('clickedCategory', `${clickedCategory ?? ''}\0${item.category}`),
  );
  return { dense, ids };
}

/** An unknown category matches nothing. */
const isSameCategory = (event: HistoryEvent, item: ItemFeatures): boolean =>
  event.category !== '' && event.category === item.category;
