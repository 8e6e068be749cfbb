import type { ItemFeatures } from '@onemall/contracts';
import { hashFeature, priceBucket } from './hash.ts';

/** What the ranker reads of an item, whoever asks: hashed once when the item comes, not for every request that it is a candidate of. */
export interface RankerItem {
  category: string;
  priceCents: number;
  validFromMs: number;
  numTags: number;
  sellingItemIds: readonly string[];
  /** See `ID_FEATURES`. */
  item: number;
  seller: number;
  priceBucket: number;
  firstTag: number;
  secondTag: number;
}

/** @param features as of the request */
export const rankerItem = (
  itemId: string,
  { category, priceCents, validFromMs, tags, sellerId, sellingItemIds }: ItemFeatures,
): RankerItem => ({
  category,
  priceCents,
  validFromMs,
  numTags: tags.length,
  sellingItemIds,
  item: hashFeature('item', itemId),
  seller: hashFeature('seller', sellerId),
  priceBucket: hashFeature('priceBucket', String(priceBucket(priceCents))),
  firstTag: hashFeature('tag', tags[0] ?? ''),
  secondTag: hashFeature('tag', tags[1] ?? ''),
});
