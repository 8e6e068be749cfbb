/** The newest published ranker: followed in policy-versions, checked against this build's features, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { loadRanker, type RankerRuntime } from '@onemall/learning';
import { type ArtifactStore, type Logger, ModelFollower, type StageMeter } from '@onemall/service-kit';
import { checkFeatures } from '../stages/check-features.ts';

export type Rankers = ModelFollower<PolicyVersion, RankerRuntime>;

export async function followRankers(options: {
  kafka: KafkaIo;
  artifacts: ArtifactStore;
  log: Logger;
  meter: StageMeter;
  fail: (error: unknown) => void;
}): Promise<{ rankers: Rankers; close(): Promise<void> }> {
  const { kafka, artifacts, log, meter, fail } = options;
  const rankers: Rankers = new ModelFollower({
    artifacts,
    log,
    meter,
    load: async (_publication, files) => {
      const ranker = await loadRanker(files);
      try {
        checkFeatures(ranker.manifest);
      } catch (error) {
        await ranker.close();
        throw error;
      }
      return ranker;
    },
    close: (ranker) => ranker.close(),
  });
  // a topic that is not compacted yet holds many old publications: only the newest is loaded
  let caughtUp = false;
  let newest: PolicyVersion | undefined;
  const table = await kafka.openTable({
    topic: 'policy-versions',
    onError: fail,
    onRecord: ({ value }) => {
      if (value?.model !== 'RANKER') return;
      newest = value;
      if (caughtUp) rankers.offer(value);
    },
  });
  await table.readToEnd();
  caughtUp = true;
  if (newest) rankers.offer(newest);
  return {
    rankers,
    async close() {
      await table.close();
      await rankers.close();
    },
  };
}
