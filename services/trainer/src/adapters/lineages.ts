/**
 * A lineage is the checkpoints of one model on one set of codebook versions. The first one has the model's name, a fork's
 * name says its versions. Which one goes on follows from policy-versions alone: the policy in use names its codebooks.
 */
import type { PolicyVersion } from '@onemall/contracts';
import type { ArtifactStore, Logger } from '@onemall/service-kit';
import { CheckpointStore } from './checkpoint-store.ts';

/** retriever-on-live_stream.2-product_card.3 */
export const forkName = (model: string, codebookVersions: Readonly<Record<string, number>>): string =>
  `${model}-on-${Object.keys(codebookVersions)
    .sort()
    .map((scenario) => `${scenario}.${codebookVersions[scenario]}`)
    .join('-')}`;

/** Whose checkpoints belong to the policy in use. */
export async function lineageInUse(
  artifacts: ArtifactStore,
  model: string,
  inUse: Pick<PolicyVersion, 'codebookVersions'> | null,
  log: Logger,
): Promise<string> {
  if (!inUse) return model;
  const fork = forkName(model, inUse.codebookVersions);
  return (await new CheckpointStore(artifacts, fork, 1, log).list()).length > 0 ? fork : model;
}
