/** The newest published retriever: followed in policy-versions, checked, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { loadPolicy, type PolicyRuntime } from '@onemall/learning';
import { type ArtifactStore, type Logger, ModelFollower, type StageMeter } from '@onemall/service-kit';
import { type LoadedPolicy, loadedPolicy } from '../retrieval.ts';

export type Policies = ModelFollower<PolicyVersion, LoadedPolicy>;

export async function followPolicies(options: {
  kafka: KafkaIo;
  artifacts: ArtifactStore;
  log: Logger;
  meter: StageMeter;
  fail: (error: unknown) => void;
  /** How a policy is made of its files; tests give their own. */
  load?: (files: Map<string, Buffer>) => Promise<PolicyRuntime>;
}): Promise<{ policies: Policies; close(): Promise<void> }> {
  const { kafka, artifacts, log, meter, fail, load = loadPolicy } = options;
  const policies: Policies = new ModelFollower({
    artifacts,
    log,
    meter,
    load: async (publication, files) => loadedPolicy(publication, await load(files)),
    close: ({ runtime }) => runtime.close(),
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
