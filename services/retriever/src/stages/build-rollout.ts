import type { Rollout, TrainingSample } from '@onemall/contracts';
import type { BeamCandidate } from './search-beam.ts';

/** The candidates of the reference policy for the request of a sample; the same request gives the same id and key. */
export function buildRollout(
  sample: TrainingSample,
  policy: { policyVersion: string; codebookVersion: number },
  candidates: readonly BeamCandidate[],
  itemOf: (packed: number) => string | null,
  createdMs: number,
): Rollout {
  const { requestId, userId, scenario, requestTimeMs } = sample.exposure;
  return {
    requestId,
    userId,
    scenario,
    requestTimeMs,
    policyVersion: policy.policyVersion,
    codebookVersion: policy.codebookVersion,
    history: sample.history,
    candidates: candidates.map(({ c1, c2, c3, packed, tokenLogProbs }) => ({
      c1,
      c2,
      c3,
      tokenLogProbs: [...tokenLogProbs],
      itemId: itemOf(packed),
    })),
    createdMs,
  };
}
