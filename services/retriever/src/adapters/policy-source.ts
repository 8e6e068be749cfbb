/** The newest published retriever, followed in policy-versions, or one that is pinned: checked, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import {
  type ArtifactRef,
  type ArtifactStore,
  ConfigError,
  type Logger,
  ModelFollower,
  type StageMeter,
} from '@onemall/service-kit';
import { type LoadedPolicy, loadedPolicy } from '../retrieval.ts';
import { openSearchThreads } from './search-threads.ts';

export type Policies = ModelFollower<PolicyVersion, LoadedPolicy>;

export async function followPolicies(options: {
  kafka: KafkaIo;
  artifacts: ArtifactStore;
  log: Logger;
  meter: StageMeter;
  fail: (error: unknown) => void;
  /** Searches at the same time. */
  threads: number;
  /** Serve this one alone. */
  pinned: ArtifactRef | null;
}): Promise<{ policies: Policies; close(): Promise<void> }> {
  const { kafka, artifacts, log, meter, fail, threads, pinned } = options;
  if (pinned) return servePinned(pinned, { artifacts, log, meter, fail, threads });
  const policies: Policies = new ModelFollower({
    artifacts,
    log,
    meter,
    load: async (publication, files) =>
      loadedPolicy(publication, await openSearchThreads(files, { threads, onFailure: fail })),
    close: ({ search }) => search.close(),
  });
  // a topic that is not compacted yet holds many old publications: only the newest is loaded
  let caughtUp = false;
  let newest: PolicyVersion | undefined;
  const table = await kafka.openTable({
    topic: 'policy-versions',
    onError: fail,
    onRecord: ({ value }) => {
      if (value?.model !== 'RETRIEVER') return;
      newest = value;
      if (caughtUp) policies.offer(value);
    },
  });
  await table.readToEnd();
  caughtUp = true;
  if (newest) policies.offer(newest);
  return {
    policies,
    async close() {
      await table.close();
      await policies.close();
    },
  };
}

/**
 * The artifact itself says what a publication would: a compacted policy-versions forgets older ones.
 * @throws ConfigError when it cannot be served
 */
async function servePinned(
  pinned: ArtifactRef,
  options: {
    artifacts: ArtifactStore;
    log: Logger;
    meter: StageMeter;
    fail: (error: unknown) => void;
    threads: number;
  },
): Promise<{ policies: Policies; close(): Promise<void> }> {
  const { artifacts, log, meter, fail, threads } = options;
  let refusal: unknown;
  const policies: Policies = new ModelFollower({
    ...{ artifacts, log, meter },
    load: async (publication, files) => {
      try {
        const search = await openSearchThreads(files, { threads, onFailure: fail });
        const { policyVersion, step, codebookVersions } = search.manifest;
        return loadedPolicy({ ...publication, policyVersion, step, codebookVersions }, search);
      } catch (error) {
        refusal = error;
        throw error;
      }
    },
    close: ({ search }) => search.close(),
  });
  policies.offer({
    ...{ model: 'RETRIEVER', policyVersion: `pinned ${pinned.uri}`, ...pinned, step: 0 },
    ...{ codebookVersions: {}, metrics: {}, createdMs: 0 },
  });
  await policies.settled();
  if (!policies.current) {
    await policies.close();
    throw new ConfigError(
      `pinnedPolicy (ONEMALL_PINNED_POLICY) names ${pinned.uri}, which cannot be served${refusal ? `: ${(refusal as Error).message}` : ', the log says why'}. Pin a policy that the artifact store still has, or none.`,
    );
  }
  return { policies, close: () => policies.close() };
}
