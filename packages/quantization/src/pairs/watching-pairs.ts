import type { Interaction } from './interactions.ts';
import type { FilterCount, ItemPair } from './pair.ts';

export interface WatchingOptions {
  /** A video counts when it was watched for longer than this. */
  minWatchMs?: number;
  /** And when its view began at least so long, at most so long, before the click. */
  minGapMs?: number;
  maxGapMs?: number;
  /** Newest such videos taken per click. */
  videosPerClick?: number;
  /** Categories of videos that say nothing about products. */
  excludedCategories?: readonly string[];
  maxPerProduct?: number;
  maxPerUser?: number;
}

/** OneMall, section 3.1.1. */
export const EXCLUDED_CATEGORIES = ['News', 'Comedy', 'Dance', 'Film/TV', 'Selfie'] as const;

export interface ItemFacts {
  index: number;
  kind: 'product' | 'video' | 'other';
  category: string;
}

/**
 * (video, product) pairs: a clicked product with the short videos that the same user watched shortly before. `a` is the
 * video, `b` the product, score the number of users who made the pair.
 * @param factsOf null for unknown items
 * @param draw uniform in [0, 1) of a text: which pairs a filter keeps must not depend on the order of the log
 * @returns the pairs and what each filter left
 */
export function watchingPairs(
  users: Iterable<readonly Interaction[]>,
  factsOf: (itemId: string) => ItemFacts | null,
  draw: (text: string) => number,
  options: WatchingOptions = {},
): { pairs: ItemPair[]; filters: FilterCount[] } {
  const { excludedCategories = EXCLUDED_CATEGORIES, maxPerProduct = 200, maxPerUser = 20 } = options;
  const excluded = new Set(excludedCategories.map((category) => category.toLowerCase()));
  const isKept = (category: string): boolean => !excluded.has(category.toLowerCase());
  let found: Watched[] = [];
  let user = 0;
  const seen = { views: 0, longViews: 0, clicks: 0, clicksAfterView: 0 };
  const before = { categories: 0, users: 0 };
  for (const events of users) {
    user++;
    const all = pairsOfUser(events, factsOf, options, seen);
    before.categories += all.length;
    const kept = all.filter(({ category }) => isKept(category));
    before.users += kept.length;
    // Cut per user at once: what one user adds is bounded whatever the length of the log.
    found.push(...sampleDown(kept, () => user, maxPerUser, draw));
  }
  const afterUsers = found.length;
  found = sampleDown(found, ({ product }) => product, maxPerProduct, draw);
  const counts = new Map<string, ItemPair>();
  for (const { video, product } of found) {
    const pair = counts.get(`${video},${product}`);
    if (pair) pair.score++;
    else counts.set(`${video},${product}`, { a: video, b: product, score: 1 });
  }
  return {
    pairs: [...counts.values()].sort((x, y) => y.score - x.score || x.a - y.a || x.b - y.b),
    filters: [
      { filter: 'videos watched long enough', before: seen.views, after: seen.longViews },
      { filter: 'clicks shortly after one', before: seen.clicks, after: seen.clicksAfterView },
      { filter: 'categories', before: before.categories, after: before.users },
      { filter: 'pairs of one user', before: before.users, after: afterUsers },
      { filter: 'frequent products', before: afterUsers, after: found.length },
      { filter: 'equal pairs', before: found.length, after: counts.size },
    ],
  };
}

interface Watched {
  video: number;
  product: number;
  category: string;
  /** Names the pair in its user's log. */
  at: string;
}

function pairsOfUser(
  events: readonly Interaction[],
  factsOf: (itemId: string) => ItemFacts | null,
  { minWatchMs = 60_000, minGapMs = 60_000, maxGapMs = 300_000, videosPerClick = 1 }: WatchingOptions,
  seen: { views: number; longViews: number; clicks: number; clicksAfterView: number },
): Watched[] {
  const pairs: Watched[] = [];
  const all = events.filter(({ kind, itemId }) => kind === 'view' && factsOf(itemId)?.kind === 'video');
  const views = all.filter(({ watchMs }) => watchMs > minWatchMs);
  seen.views += all.length;
  seen.longViews += views.length;
  for (const click of events) {
    if (click.kind !== 'click') continue;
    const product = factsOf(click.itemId);
    if (product?.kind !== 'product') continue;
    seen.clicks++;
    const newest = views
      .filter(({ timeMs }) => click.timeMs - timeMs >= minGapMs && click.timeMs - timeMs <= maxGapMs)
      .slice(-videosPerClick);
    if (newest.length > 0) seen.clicksAfterView++;
    for (const view of newest) {
      const video = factsOf(view.itemId)!;
      pairs.push({
        video: video.index,
        product: product.index,
        category: video.category,
        at: `${view.itemId} ${view.timeMs} ${click.itemId} ${click.timeMs}`,
      });
    }
  }
  return pairs;
}

/** At most `max` of each group, drawn by the pairs' own names. */
function sampleDown(
  pairs: readonly Watched[],
  groupOf: (pair: Watched) => number,
  max: number,
  draw: (text: string) => number,
): Watched[] {
  const kept: Watched[] = [];
  for (const group of Map.groupBy(pairs, groupOf).values())
    kept.push(
      ...(group.length <= max
        ? group
        : group
            .map((pair) => ({ pair, drawn: draw(pair.at) }))
            .sort((x, y) => x.drawn - y.drawn || (x.pair.at < y.pair.at ? -1 : 1))
            .slice(0, max)
            .map(({ pair }) => pair)),
    );
  return kept;
}
