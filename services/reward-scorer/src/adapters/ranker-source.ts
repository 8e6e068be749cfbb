/** The newest published ranker: followed in policy-versions, checked, loaded, switched to. */
import type { PolicyVersion } from '@onemall/contracts';
import type { KafkaIo } from '@onemall/kafka-io';
import { loadRanker, type RankerRuntime } from '@onemall/learning';
import { type ArtifactStore, type Logger, ModelFollower, type StageMeter } from '@onemall/service-kit';
import type { RankerSource, ScorerRanker } from '../ranker.ts';

interface LoadedRanker extends ScorerRanker {
  runtime: RankerRuntime;
}

export async function followRankers(options: {
  kafka: KafkaIo;
  artifacts: ArtifactStore;
  log: Logger;
  meter: StageMeter;
  fail: (error: unknown) => void;
}): Promise<{ rankers: RankerSource; close(): Promise<void> }> {
  const { kafka, artifacts, log, meter, fail } = options;
  const rankers = new ModelFollower<PolicyVersion, LoadedRanker>({
    artifacts,
    log,
    meter,
    // refuses a ranker that was trained on other features than this build computes
    load: async (_publication, files) => {
      const runtime = await loadRanker(files);
      return { runtime, identity: runtime.manifest, score: (...rows) => runtime.score(...rows) };
    },
    close: ({ runtime }) => runtime.close(),
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
