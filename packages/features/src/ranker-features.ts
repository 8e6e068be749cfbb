/**
 * Inputs of the ranker for one candidate of one request: a pure function of the history in the sample and the candidate, so
 * that a logged target gives the same numbers in training and when it is scored as a candidate.
 */
import type { HistoryEvent, ItemFeatures } from '@onemall/contracts';
import { hashFeature } from './hash.ts';
import { type RankerItem, rankerItem } from './ranker-item.ts';
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
  const features = { dense: new Float32Array(NUM_DENSE), ids: new Int32Array(NUM_IDS) };
  new RankerRequest(request).write(itemId, rankerItem(itemId, item), features.dense, features.ids, 0);
  return features;
}

/** What a request's history holds of one category or one item, by behaviour. */
interface Seen {
  counts: [number, number, number];
  newestMs: [number, number, number];
}

interface CategoryPart {
  /** Its own features and those that all candidates share: float32 [NUM_DENSE]. */
  dense: Float32Array;
  ids: { category: number; scenarioCategory: number; clickedCategory: number };
}

const NEVER_MS = Number.NEGATIVE_INFINITY;
const NOTHING: Readonly<Seen> = { counts: [0, 0, 0], newestMs: [NEVER_MS, NEVER_MS, NEVER_MS] };
const rate = (hits: number, of: number): number => Math.min(1, (hits + 0.5) / (of + 5));

/**
 * Features of many candidates of one request: the history is gone through once, a candidate costs a few look-ups. Training
 * and scoring both take this path; the tests hold it against the definitions above written out.
 */
export class RankerRequest {
  readonly #scenario: string;
  readonly #requestTimeMs: number;
  /** Where the candidate has no part in a feature, its value. */
  readonly #shared = new Float32Array(NUM_DENSE);
  readonly #all: Seen = { counts: [0, 0, 0], newestMs: [NEVER_MS, NEVER_MS, NEVER_MS] };
  readonly #byCategory = new Map<string, Seen>();
  readonly #byItem = new Map<string, Seen>();
  readonly #clickedCategory: string;
  readonly #scenarioId: number;
  readonly #categories = new Map<string, CategoryPart>();

  constructor({ scenario, requestTimeMs, history }: RequestContext) {
    this.#scenario = scenario;
    this.#requestTimeMs = requestTimeMs;
    let newestClick: HistoryEvent | null = null;
    for (const [b, events] of [history.exposures, history.clicks, history.buys].entries())
      for (const event of events) {
        if (event.eventTimeMs >= requestTimeMs) continue;
        count(this.#all, b, event.eventTimeMs);
        // an unknown category matches nothing
        if (event.category !== '') count(seenOf(this.#byCategory, event.category), b, event.eventTimeMs);
        count(seenOf(this.#byItem, event.itemId), b, event.eventTimeMs);
        if (b === 1 && !(newestClick && newestClick.eventTimeMs >= event.eventTimeMs)) newestClick = event;
      }
    this.#clickedCategory = newestClick?.category ?? '';
    this.#scenarioId = hashFeature('scenario', scenario);
    const { counts, newestMs } = this.#all;
    for (let b = 0; b < 3; b++) {
      this.#shared[AT.count + b] = Math.log1p(counts[b]!);
      this.#shared[AT.recency + b] = this.#recency(newestMs[b]!);
    }
    this.#shared[AT.clickRate] = rate(counts[1], counts[0]);
    this.#shared[AT.buyRate] = rate(counts[2], counts[1]);
    const dayFraction = (requestTimeMs % 86_400_000) / 86_400_000;
    this.#shared[AT.hourSin] = Math.sin(2 * Math.PI * dayFraction);
    this.#shared[AT.hourCos] = Math.cos(2 * Math.PI * dayFraction);
  }

  /** Writes row `row` of dense [.., NUM_DENSE] and ids [.., NUM_IDS]. @param item as of the request */
  write(itemId: string, item: RankerItem, dense: Float32Array, ids: Int32Array, row: number): void {
    const at = row * NUM_DENSE;
    const category = this.#categoryPart(item.category);
    dense.set(category.dense, at);
    const own = this.#byItem.get(itemId);
    if (own)
      for (let b = 0; b < 3; b++) {
        dense[at + AT.sameItem + b] = Math.log1p(own.counts[b]!);
        dense[at + AT.sameItemRecency + b] = this.#recency(own.newestMs[b]!);
      }
    if (item.sellingItemIds.length > 0) this.#writeSelling(item.sellingItemIds, dense, at);
    dense[at + AT.price] = Math.log2(1 + item.priceCents) / 32;
    dense[at + AT.itemRecency] = this.#recency(item.validFromMs);
    dense[at + AT.tags] = Math.min(1, item.numTags / 4);
    let id = row * NUM_IDS;
    ids[id++] = item.item;
    ids[id++] = category.ids.category;
    ids[id++] = item.seller;
    ids[id++] = this.#scenarioId;
    ids[id++] = item.priceBucket;
    ids[id++] = item.firstTag;
    ids[id++] = item.secondTag;
    ids[id++] = category.ids.scenarioCategory;
    ids[id++] = category.ids.clickedCategory;
  }

  #writeSelling(itemIds: readonly string[], dense: Float32Array, at: number): void {
    const selling = new Set(itemIds);
    let clicks = 0;
    let buys = 0;
    for (const sold of selling) {
      const seen = this.#byItem.get(sold);
      clicks += seen?.counts[1] ?? 0;
      buys += seen?.counts[2] ?? 0;
    }
    dense[at + AT.sellingClicks] = Math.log1p(clicks);
    dense[at + AT.sellingBuys] = Math.log1p(buys);
    dense[at + AT.selling] = Math.log1p(selling.size);
  }

  /** What candidates of one category share, computed for the first of them. */
  #categoryPart(name: string): CategoryPart {
    const known = this.#categories.get(name);
    if (known) return known;
    const dense = this.#shared.slice();
    const category = this.#byCategory.get(name) ?? NOTHING;
    const all = this.#all.counts;
    for (let b = 0; b < 3; b++) {
      const inCategory = category.counts[b]!;
      dense[AT.sameCategory + b] = Math.log1p(inCategory);
      dense[AT.sameCategoryShare + b] = inCategory / Math.max(1, all[b]!);
      dense[AT.sameCategoryRecency + b] = this.#recency(category.newestMs[b]!);
    }
    dense[AT.categoryClickRate] = rate(category.counts[1], category.counts[0]);
    dense[AT.categoryBuyRate] = rate(category.counts[2], category.counts[1]);
    const part: CategoryPart = {
      dense,
      ids: {
        category: hashFeature('category', name),
        scenarioCategory: hashFeature('scenarioCategory', `${this.#scenario}\0${name}`),
        clickedCategory: hashFeature('clickedCategory', `${this.#clickedCategory}\0${name}`),
      },
    };
    this.#categories.set(name, part);
    return part;
  }

  #recency(timeMs: number): number {
    return timeMs === NEVER_MS || timeMs > this.#requestTimeMs
      ? 0
      : Math.max(0, 1 - Math.log2(1 + (this.#requestTimeMs - timeMs) / 1000) / 32);
  }
}

/** First index of each feature, or of its three behaviours. */
const at = (name: string): number => {
  const index = DENSE_FEATURES.indexOf(name);
  return index >= 0 ? index : DENSE_FEATURES.indexOf(`exposure.${name}`);
};
const AT = {
  count: at('count'),
  sameCategory: at('sameCategory'),
  sameCategoryShare: at('sameCategoryShare'),
  sameItem: at('sameItem'),
  recency: at('recency'),
  sameCategoryRecency: at('sameCategoryRecency'),
  sameItemRecency: at('sameItemRecency'),
  clickRate: at('clickRate'),
  categoryClickRate: at('categoryClickRate'),
  buyRate: at('buyRate'),
  categoryBuyRate: at('categoryBuyRate'),
  sellingClicks: at('sellingClicks'),
  sellingBuys: at('sellingBuys'),
  price: at('price'),
  itemRecency: at('itemRecency'),
  tags: at('tags'),
  selling: at('selling'),
  hourSin: at('hourSin'),
  hourCos: at('hourCos'),
} as const;

function seenOf(map: Map<string, Seen>, key: string): Seen {
  let seen = map.get(key);
  if (!seen) {
    seen = { counts: [0, 0, 0], newestMs: [NEVER_MS, NEVER_MS, NEVER_MS] };
    map.set(key, seen);
  }
  return seen;
}
function count(seen: Seen, behaviour: number, timeMs: number): void {
  seen.counts[behaviour]!++;
  seen.newestMs[behaviour] = Math.max(seen.newestMs[behaviour]!, timeMs);
}
