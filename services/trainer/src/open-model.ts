import type { Codebook as CodebookRecord } from '@onemall/contracts';
import { readCodebook } from '@onemall/quantization';
import type { ArtifactStore } from '@onemall/service-kit';
import { CodebookWatch } from './adapters/codebook-watch.ts';
import { openRankerLearner } from './adapters/ranker-learner.ts';
import { type MeasuredSide, RecallGate, type RecallGateRules } from './adapters/recall-gate.ts';
import { openRetrieverLearner } from './adapters/retriever-learner.ts';
import { SampleEncoder } from './adapters/sample-encoder.ts';
import { SidTables } from './adapters/sid-tables.ts';
import type { OpenLearner } from './compose.ts';
import type { TrainerConfig } from './config.ts';
import { type Codebooks, codebooksOf } from './learner.ts';
import { type StartingCodebook, startFromContent } from './stages/start-from-content.ts';

/** The configured model: a checkpoint's codebook versions, else the newest ones. */
export const openModel: OpenLearner = async (context, io, open, scenarios, checkpoint, inUse) => {
  const { artifacts, config, log, clock, meter, fail, stopping } = context;
  if (config.model === 'ranker')
    return {
      learner: open.add(await openRankerLearner(config, scenarios, meter, log)),
      tables: null,
      codebooks: { codebookVersions: {}, numCodes: {} },
      gate: null,
    };
  const watch = open.add(await CodebookWatch.open(io, scenarios, log, meter, fail));
  const newest = checkpoint ? [] : await watch.all(clock, stopping);
  if (!newest) return null;
  const { codebookVersions, numCodes } = checkpoint ?? codebooksOf(newest);
  const codebooks = { codebookVersions, numCodes };
  watch.keepTo(codebooks);
  log.info(codebooks, 'training on these codebook versions');
  const tables = open.add(await SidTables.open(io, clock, codebooks, meter, fail));
  const learner = open.add(await openRetrieverLearner(config, scenarios, codebooks, tables, meter, log));
  if (!checkpoint && config.contentStart) {
    const state = await learner.save();
    const stored = await storedCodebooks(artifacts, newest);
    startFromContent(state.trainer, stored, { scenarios, numCodes }, config.seed);
    await learner.restore(state);
    log.info('tables and heads begin as the centroids of the codebooks');
  }
  const sideOf = (books: Codebooks, sids: SidTables): MeasuredSide => {
    const { historyLength } = learner;
    const encoder = new SampleEncoder({ scenarios, codebooks: books, tables: sids, historyLength, meter });
    return {
      codebookVersions: books.codebookVersions,
      encode: (sample) => encoder.sample(sample),
      sidsNow: () => sids.retrievable(),
    };
  };
  if (config.heldBackFraction === 0) {
    log.warn('heldBackFraction is 0: policies are published without being measured');
    return { learner, tables, codebooks, gate: null };
  }
  const older = inUse && open.add(await SidTables.open(io, clock, inUse, meter, fail));
  const gate = open.add(
    new RecallGate({
      rules: gateRules(config, scenarios),
      own: sideOf(codebooks, tables),
      ...(inUse && older && { inUse: sideOf(inUse, older) }),
    }),
  );
  return { learner, tables, codebooks, gate };
};

const storedCodebooks = (
  artifacts: ArtifactStore,
  records: readonly CodebookRecord[],
): Promise<StartingCodebook[]> =>
  Promise.all(
    records.map(async (record) => ({
      codebook: readCodebook(await artifacts.get(record)),
      fromTower: record.towerVersion !== null,
    })),
  );

export const gateRules = (config: TrainerConfig, scenarios: readonly string[]): RecallGateRules => ({
  perScenario: Math.ceil(config.gateRequests / scenarios.length),
  minRequests: config.gateMinRequests,
  beamWidth: Math.min(...config.beamWidths),
  maxRecallFall: config.gateMaxRecallFall,
  maxLegalityFall: config.gateMaxLegalityFall,
});
