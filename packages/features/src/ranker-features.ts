/**
 * Inputs of the ranker for one candidate of one request: a pure function of the history in the sample and the candidate, so
 * that a logged target gives the same numbers in training and when it is scored as a candidate.
 */
import type { HistoryEvent, ItemFeatures } from '@onemall/contracts';
import { hashFeature, priceBucket } from './hash.ts';
import type { RequestContext } from './request-tensors.ts';

/** Goes up with any change of the numbers below; a published ranker of another version is refused. */
export const FEATURE_VERSION = 1;

export interface RankerFeatures {
  /** float32 [NUM_DENSE], see `DENSE_FEATURES`. */
  dense: Float32Array;
  /** int32 [NUM_IDS] non-negative hashes, see `ID_FEATURES`. */
  ids: Int32Array;
}

const perBehaviour = (name: string) => ['exposure', 'click', 'buy'].map((b) => `${b}.${name}`);

/**
 * Dense features in order. "Events" are those of the history that happened before the request; recency(t) is
 * 1 - log2(1 + seconds) / 32, from 1 (now) down to 0 (136 years), and 0 where there is no such event.
 */
export const DENSE_FEATURES: readonly string[] = [
  /** log1p of the number of events. */
  ...perBehaviour('count'),
  /** log1p of the number of events in the candidate's category. */
  ...perBehaviour('sameCategory'),
  /** Share of the events that are in the candidate's category. */
  ...perBehaviour('sameCategoryShare'),
  /** log1p of the number of events with the candidate itself. */
  ...perBehaviour('sameItem'),
  /** recency of the newest event. */
  ...perBehaviour('recency'),
  /** recency of the newest event in the candidate's category. */
  ...perBehaviour('sameCategoryRecency'),
  /** recency of the newest event with the candidate. */
  ...perBehaviour('sameItemRecency'),
  /** (clicks + 0.5) / (exposures + 5), at most 1: how often this user clicks; of all, then of the category. */
  'clickRate',
  'categoryClickRate',
  /** (buys + 0.5) / (clicks + 5), at most 1; of all, then of the category. */
  'buyRate',
  'categoryBuyRate',
  /** log1p of the clicks and of the buys of products that the candidate (a live room) sells now. */
  'sellingClicks',
  'sellingBuys',
  /** log2(1 + price in cents) / 32. */
  'price',
  /** recency of the item's current version. */
  'itemRecency',
  /** Number of tags / 4, at most 1. */
  'tags',
  /** log1p of the number of products on sale. */
  'selling',
  /** Time of day in UTC on the circle. */
  'hourSin',
  'hourCos',
];
export const NUM_DENSE = DENSE_FEATURES.length;

/** Hashed ids in order; every field has its own hash space. */
export const ID_FEATURES = [
  'item',
  'category',
  'seller',
  'scenario',
  'priceBucket',
  'firstTag',
  'secondTag',
  /** Scenario and category together. */
  'scenarioCategory',
  /** Category of the newest click and that of the candidate. */
  'clickedCategory',
] as const;
export const NUM_IDS = ID_FEATURES.length;

/** Features of one candidate. @param item the item's features as of the request */
export function rankerFeatures(request: RequestContext, itemId: string, item: ItemFeatures): RankerFeatures {
  const { requestTimeMs, history } = request;
  const before = (events: readonly HistoryEvent[]) => events.filter((e) => e.eventTimeMs < requestTimeMs);
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
