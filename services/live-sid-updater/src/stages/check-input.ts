import { BadRecordError, type Item, type ProductChange } from '@onemall/contracts';

/**
 * @param latestMs times after this are not believed
 * @throws BadRecordError
 */
export function checkChange(key: string, change: ProductChange, latestMs: number): void {
  const { liveId, kind, itemId, changeId, eventTimeMs } = change;
  if (liveId === '' || changeId === '' || itemId === '')
    throw new BadRecordError('EMPTY_ID', 'A product change has liveId, changeId or itemId empty');
  if (kind !== 'ROOM_ENDED' && itemId === null)
    throw new BadRecordError(
      'EMPTY_ID',
      `A product change of kind ${kind} names its product, got itemId null`,
    );
  if (key !== liveId)
    throw new BadRecordError(
      'KEY_MISMATCH',
      `The key of a product change is its liveId ${liveId}, got ${key}`,
    );
  checkTime('eventTimeMs', eventTimeMs, latestMs);
}

/** @throws BadRecordError */
export function checkItem(key: string, item: Item, scenarios: ReadonlySet<string>, latestMs: number): void {
  if (item.itemId === '') throw new BadRecordError('EMPTY_ID', 'An item has an empty itemId');
  if (key !== item.itemId)
    throw new BadRecordError('KEY_MISMATCH', `The key of an item is its itemId ${item.itemId}, got ${key}`);
  if (!scenarios.has(item.scenario))
    throw new BadRecordError(
      'UNKNOWN_SCENARIO',
      `Item ${item.itemId} is of scenario ${item.scenario}; configured are ${[...scenarios].join(', ')}`,
    );
  checkTime('validFromMs', item.validFromMs, latestMs);
}

function checkTime(name: string, ms: number, latestMs: number): void {
  if (!(ms >= 0 && ms <= latestMs))
    throw new BadRecordError('TIME_OUT_OF_RANGE', `${name} lies in [0, ${latestMs}], got ${ms}`);
}
