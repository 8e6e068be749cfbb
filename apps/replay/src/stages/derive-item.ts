/** Items as far as the log tells them. */
import type { Item } from '@onemall/contracts';
import type { LogEvent } from './events.ts';

/**
 * The item of an event. A log does not say since when an item exists: validFromMs 0 makes it known to every request.
 * Its price is the first one seen; the price of each showing is in the exposure.
 */
export function deriveItem(event: LogEvent, scenario: string): Item {
  const { texts } = event;
  const { itemId } = event.value;
  const fill = (text: string): string => text.replaceAll('{item}', itemId);
  return {
    itemId,
    scenario,
    validFromMs: 0,
    title: fill(texts.title),
    category: fill(texts.category),
    tags: texts.tags.map(fill),
    priceCents: event.topic === 'clicks' ? 0 : event.value.priceCents,
    sellerId: fill(texts.sellerId),
    productId: null,
    contentVideo: false,
    embedding: null,
  };
}
