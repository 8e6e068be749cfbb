import type { Rollout, TrainingSample } from '@onemall/contracts';
import { candidatesOf, type FoundSids } from './search-beam.ts';

/** The candidates of the reference policy for the request of a sample; the same request gives the same id and key. */
export function buildRollout(
  sample: TrainingSample,
  policy: { policyVersion: string; codebookVersion: number },
  found: FoundSids,
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
    candidates: candidatesOf(found).map(({ c1, c2, c3, packed, tokenLogProbs }) => ({
      c1,
      c2,
      c3,
      tokenLogProbs,
      itemId: itemOf(packed),
    })),
    createdMs,
  };
}
