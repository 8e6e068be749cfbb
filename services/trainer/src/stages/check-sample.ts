import { BadRecordError, type StreamedSample } from '@onemall/contracts';

/**
 * Refuses a sample that no model can learn from and that no retry mends; the caller sends it to dead-letters.
 *
 * checkSample(key 'u2', sample of user 'u1') throws KEY_MISMATCH.
 *
 * @param scenarios the configured scenario names
 * @throws BadRecordError with the field, what was expected and what came
 */
export function checkSample(key: string, sample: StreamedSample, scenarios: ReadonlySet<string>): void {
  const { exposure } = sample;
  const badFloat = exposure.requestFeatures.floats.findIndex((x) => !Number.isFinite(x));
  if (badFloat >= 0)
    throw new BadRecordError(
      'NOT_A_NUMBER',
      `exposure.requestFeatures.floats[${badFloat}] is ${exposure.requestFeatures.floats[badFloat]}, expected a finite number`,
    );
  for (const field of ['exposureId', 'userId', 'itemId', 'requestId'] as const)
    if (exposure[field] === '')
      throw new BadRecordError('EMPTY_ID', `exposure.${field} is empty, expected an id`);
  if (key !== exposure.userId)
    throw new BadRecordError(
      'KEY_MISMATCH',
      `Key is ${JSON.stringify(key)}, expected exposure.userId ${JSON.stringify(exposure.userId)}`,
    );
  if (!scenarios.has(exposure.scenario))
    throw new BadRecordError(
      'UNKNOWN_SCENARIO',
      `exposure.scenario is ${JSON.stringify(exposure.scenario)}, expected one of ${[...scenarios].join(', ')}`,
    );
  if (!(exposure.requestTimeMs >= 0) || !(exposure.eventTimeMs >= 0))
    throw new BadRecordError(
      'TIME_OUT_OF_RANGE',
      `exposure.requestTimeMs ${exposure.requestTimeMs} and eventTimeMs ${exposure.eventTimeMs} must be ms since the epoch`,
    );
  for (const [name, value] of [
    ['exposure.priceCents', exposure.priceCents],
    ['buyValueCents', sample.buyValueCents],
    ['buyQuantity', sample.buyQuantity],
    ['item.priceCents', sample.item?.priceCents ?? 0],
  ] as const)
    if (!(value >= 0)) throw new BadRecordError('NEGATIVE_VALUE', `${name} is ${value}, expected at least 0`);
  if (sample.sid && Math.min(sample.sid.c1, sample.sid.c2, sample.sid.c3) < 0)
    throw new BadRecordError(
      'NEGATIVE_VALUE',
      `sid is ${sample.sid.c1},${sample.sid.c2},${sample.sid.c3}, expected codes of at least 0`,
    );
}
