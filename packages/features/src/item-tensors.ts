import type { ItemFeatures } from '@onemall/contracts';
import { hashFeature, priceBucket } from './hash.ts';
import type { LookupSid } from './request-tensors.ts';
import { type SidLayout, writeSidRows } from './sid-layout.ts';
import {
  type ItemTensors,
  MAX_SELLING,
  MAX_TAGS,
  NUM_ITEM_HASHES,
  NUM_ITEM_SIDS,
  type SidCodes,
} from './tensors.ts';

export interface ItemTensorOptions {
  layout: SidLayout;
  /** Scenarios whose items keep their own SID out of their features; default live_stream. */
  liveScenarios?: readonly string[];
}

/**
 * Item-side features of the item tower. A live room leaves out its own SID, which is made from this tower's output (the
 * embedding would confirm itself), and takes the SIDs of the products on sale instead.
 * @param sid the item's own SID, null where unknown
 * @param lookupSid SIDs of the products on sale
 */
export function itemTensors(
  item: { scenario: string; features: ItemFeatures; sid: SidCodes | null },
  lookupSid: LookupSid,
  { layout, liveScenarios = ['live_stream'] }: ItemTensorOptions,
): ItemTensors {
  const { features, scenario, sid } = item;
  if (!layout.offsets.has(scenario))
    throw new Error(`Item of unknown scenario ${scenario}; known: ${layout.scenarios.join(', ')}`);
  const hashes = new Int32Array(NUM_ITEM_HASHES).fill(-1);
  hashes[0] = hashFeature('category', features.category);
  hashes[1] = hashFeature('seller', features.sellerId);
  hashes[2] = hashFeature('price', String(priceBucket(features.priceCents)));
  features.tags.slice(0, MAX_TAGS).forEach((tag, i) => {
    hashes[3 + i] = hashFeature('tag', tag);
  });
  const codes = new Int32Array(NUM_ITEM_SIDS * 3).fill(-1);
  if (sid && !liveScenarios.includes(scenario)) writeSidRows(layout, sid, codes, 0);
  const selling = features.sellingItemIds.slice(0, MAX_SELLING).map(lookupSid);
  selling.forEach((sold, i) => {
    if (sold) writeSidRows(layout, sold, codes, (1 + i) * 3);
  });
  return { scenario, hashes, codes };
}
