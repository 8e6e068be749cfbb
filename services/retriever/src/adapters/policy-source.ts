/** The newest published retriever: followed in policy-versions, checked, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { type ArtifactStore, type Logger, ModelFollower, type StageMeter } from '@onemall/service-kit';
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
}): Promise<{ policies: Policies; close(): Promise<void> }> {
  const { kafka, artifacts, log, meter, fail, threads } = options;
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
