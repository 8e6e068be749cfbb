import type { Item, SampleKind, TrainingSample } from '@onemall/contracts';

export function sample(
  requestId: string,
  position: number,
  itemId: string,
  more: { clicked?: boolean; kind?: SampleKind; scenario?: string; requestTimeMs?: number } = {},
): TrainingSample {
  const { clicked = false, kind = 'FINAL', scenario = 'product_card', requestTimeMs = 1_000 } = more;
  return {
    exposure: {
      exposureId: `${requestId}-${position}`,
      userId: `u-${requestId}`,
      itemId,
      scenario,
      eventTimeMs: requestTimeMs + 5,
      requestId,
      requestTimeMs,
      position,
      watchMs: null,
      priceCents: 100,
      requestFeatures: { ints: [], floats: [] },
    },
    kind,
    firstPositive: clicked,
    clicked,
    clickDelayMs: clicked ? 10 : null,
    bought: false,
    buyDelayMs: null,
    buyValueCents: 0,
    buyQuantity: 0,
    sid: null,
    item: null,
    history: { exposures: [], clicks: [{ itemId: 'h', eventTimeMs: 1, category: 'c' }], buys: [] },
    watermarkMs: 2_000,
  };
}

export const item = (itemId: string, embedding: number[] | null = null): Item => ({
  itemId,
  scenario: 'product_card',
  validFromMs: 1_000,
  title: `title ${itemId}`,
  category: 'cups',
  tags: [],
  priceCents: 100,
  sellerId: 's',
  productId: null,
  contentVideo: false,
  embedding,
});
