import { BadRecordError, type Rollout } from '@onemall/contracts';

/**
 * What scoring relies on in a rollout beyond its schema.
 * @throws BadRecordError with the reason for dead-letters
 */
export function checkRollout(key: string, rollout: Rollout): void {
  const { requestId, candidates } = rollout;
  if (requestId === '') throw new BadRecordError('EMPTY_ID', 'Expected a requestId, got an empty string');
  if (key !== requestId)
    throw new BadRecordError(
      'KEY_MISMATCH',
      `Expected the record's key to be its requestId ${JSON.stringify(requestId)}, got ${JSON.stringify(key)}`,
    );
  for (const [rank, { c1, c2, c3, tokenLogProbs }] of candidates.entries()) {
    if (tokenLogProbs.length !== 3)
      throw new BadRecordError(
        'NOT_A_NUMBER',
        `Expected 3 log-probabilities in candidates[${rank}], got ${tokenLogProbs.length}`,
      );
    if (Math.min(c1, c2, c3) < 0)
      throw new BadRecordError(
        'NEGATIVE_VALUE',
        `Expected codes of at least 0 in candidates[${rank}], got ${c1}, ${c2}, ${c3}`,
      );
  }
}
