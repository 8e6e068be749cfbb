import type { RetrievalSample } from '@onemall/learning';
import { CodebookWatch } from './adapters/codebook-watch.ts';
import { openRankerLearner } from './adapters/ranker-learner.ts';
import { RecallGate } from './adapters/recall-gate.ts';
import { openRetrieverLearner } from './adapters/retriever-learner.ts';
import { SidTables } from './adapters/sid-tables.ts';
import type { Closers, OpenLearner } from './compose.ts';
import type { Learner } from './learner.ts';

/** The configured model: a checkpoint's codebook versions, else the newest ones. */
export const openModel: OpenLearner = async (context, io, open, scenarios, checkpoint) => {
  const { config, log, clock, meter, fail, stopping } = context;
  if (config.model === 'ranker')
    return {
      learner: open.add(await openRankerLearner(config, scenarios, meter)),
      tables: null,
      codebooks: { codebookVersions: {}, numCodes: {} },
      gate: null,
    };
  const watch = open.add(await CodebookWatch.open(io, scenarios, log, meter, fail));
  const chosen = checkpoint ?? (await watch.all(clock, stopping));
  if (!chosen) return null;
  const codebooks = { codebookVersions: chosen.codebookVersions, numCodes: chosen.numCodes };
  watch.keepTo(codebooks);
  log.info(codebooks, 'training on these codebook versions');
  const tables = open.add(await SidTables.open(io, clock, codebooks, meter, fail));
  const learner = open.add(await openRetrieverLearner(config, scenarios, codebooks, tables, meter));
  return { learner, tables, codebooks, gate: openGate(context, scenarios, learner, tables, open) };
};

function openGate(
  { config, log }: Parameters<OpenLearner>[0],
  scenarios: readonly string[],
  learner: Learner<RetrievalSample[]>,
  tables: SidTables,
  open: Closers,
): RecallGate | null {
  if (config.heldBackFraction === 0) {
    log.warn('heldBackFraction is 0: policies are published without being measured');
    return null;
  }
  return open.add(
    new RecallGate({
      rules: {
        perScenario: Math.ceil(config.gateRequests / scenarios.length),
        minRequests: config.gateMinRequests,
        beamWidth: Math.min(...config.beamWidths),
        maxRecallFall: config.gateMaxRecallFall,
        maxLegalityFall: config.gateMaxLegalityFall,
      },
      encode: (samples) => learner.encode(samples),
      sidsNow: () => tables.newest(),
    }),
  );
}
