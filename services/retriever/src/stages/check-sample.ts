import { BadRecordError, type TrainingSample } from '@onemall/contracts';

/**
 * What the retriever relies on in a sample.
 * @throws BadRecordError with the reason for dead-letters
 */
export function checkSample(
  sample: TrainingSample,
  rules: { scenarios: ReadonlySet<string>; nowMs: number; allowedClockSkewMs: number },
): void {
  const { requestId, itemId, scenario, requestTimeMs, eventTimeMs } = sample.exposure;
  if (requestId === '' || itemId === '')
    throw new BadRecordError(
      'EMPTY_ID',
      `Expected requestId and itemId of the exposure, got requestId ${JSON.stringify(requestId)}, itemId ${JSON.stringify(itemId)}`,
    );
  if (!rules.scenarios.has(scenario))
    throw new BadRecordError(
      'UNKNOWN_SCENARIO',
      `Expected one of ${[...rules.scenarios].join(', ')}, got ${JSON.stringify(scenario)}`,
    );
  const latestMs = rules.nowMs + rules.allowedClockSkewMs;
  for (const [name, timeMs] of Object.entries({ requestTimeMs, eventTimeMs }))
    if (!(timeMs >= 0 && timeMs <= latestMs))
      throw new BadRecordError('TIME_OUT_OF_RANGE', `Expected ${name} in [0, ${latestMs}], got ${timeMs}`);
}
