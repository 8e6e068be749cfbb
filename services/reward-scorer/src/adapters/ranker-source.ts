/** The newest published ranker: followed in policy-versions, checked, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { loadRanker, type RankerRuntime } from '@onemall/learning';
import { type ArtifactStore, type Logger, ModelFollower, type StageMeter } from '@onemall/service-kit';

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
    // refuses a ranker that was trained on other features than this build computes
    load: (_publication, files) => loadRanker(files),
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
