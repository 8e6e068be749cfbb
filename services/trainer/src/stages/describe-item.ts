import type { ItemFeatures, StreamedSample } from '@onemall/contracts';

/**
 * The target's features. A log may show an item that the items topic does not know (yet): then only the price of the
 * exposure is known, and `known` is false so that the caller counts it.
 */
export function describeItem(sample: StreamedSample): { features: ItemFeatures; known: boolean } {
  if (sample.item) return { features: sample.item, known: true };
  return {
    features: {
      category: '',
      tags: [],
      priceCents: sample.exposure.priceCents,
      sellerId: '',
      sellingItemIds: [],
      validFromMs: 0,
    },
    known: false,
  };
}
