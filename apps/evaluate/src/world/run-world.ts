/** Runs on the evaluation world. A run that is stopped goes on from its folder. */
import { sidLayout } from '@onemall/features';
import { type RetrievalPresetName, retrievalPresets } from '@onemall/learning';
import { type RetrievalCost, retrievalCost } from '@onemall/learning/sequences';
import type { Codebook } from '@onemall/quantization';
import { readCodebook, writeCodebook } from '@onemall/quantization';
import { RunStore } from './adapters/run-store.ts';
import { DenseLists, ItemVectorsOf } from './dense-lists.ts';
import { DEPTH, meanOverSeeds, type RequestHits } from './hit-rates.ts';
import { hitTable, judgeLists } from './hit-table.ts';
import type { ListModel } from './lists.ts';
import { OneMallLists, type OneMallRun, Shelf, trainOneMall } from './onemall-model.ts';
import type { EvaluationPlan } from './plan.ts';
import { positivesBefore } from './samples.ts';
import { SasrecLists, trainSasrec } from './sasrec-lists.ts';
import { encodeItems, ItemVectors, SemanticIds, trainCodebooks } from './semantic-ids.ts';
import { Popularity } from './simple-lists.ts';
import { trainTiger } from './tiger-lists.ts';
import { SCENARIOS, WorldLog } from './world-log.ts';

/** Of the trainer's default. */
const WARMUP_STEPS = 100;

/** onemall-events: without Query-Formers, its decoder reads every event of the histories (paper, table 6). */
export const WORLD_MODELS = ['onemall', 'onemall-events', 'sasrec', 'tiger'] as const;
export type WorldModel = (typeof WORLD_MODELS)[number];

export interface WorldRun {
  plan: EvaluationPlan;
  folder: string;
  /** Newest positives before the cut that models train on, at most; 0 trains none and prints the lists that need no model. */
  positives: number;
  /** Requests of the last span that are judged, about. */
  requests: number;
  /** Time for judging; what is judged by then is reported. No limit where absent. */
  judgeMinutes?: number;
  /** What is compared, besides the lists that need no model; `evaluate -- rl` needs onemall alone. */
  models: readonly WorldModel[];
  preset: RetrievalPresetName;
  historyLength: number;
  seed: number;
  /** Passes over the positives; default 1. */
  epochs?: number;
  /** Steps between checkpoints; default 500. */
  checkpointEvery?: number;
  print: (line: string) => void;
}

/** A run up to the cut. */
export interface PreparedWorld {
  log: WorldLog;
  store: RunStore;
  popularity: Popularity;
  /** null where no model is asked for. */
  sids: SemanticIds | null;
  /** Rows of the positives that models train on, in order. */
  positives: Int32Array;
  cutMs: number;
}

/** The folder of a run. */
export const openStore = ({ folder, plan }: Pick<WorldRun, 'folder' | 'plan'>): RunStore =>
  new RunStore(folder, `plan ${plan.hash}`);

/** Simulates up to the cut, with semantic IDs where models are asked for. */
export async function prepareWorld(run: WorldRun): Promise<PreparedWorld> {
  const { plan, print } = run;
  const store = openStore(run);
  const log = new WorldLog(plan);
  print(`simulating ${plan.trainExposures} exposures`);
  while (log.numExposures < plan.trainExposures) log.nextRequest();
  const cutMs = log.requests.timeMs.at(log.numRequests - 1);
  const sids = run.positives > 0 ? await semanticIds(log, store, run) : null;
  await sids?.followRooms();
  const all = positivesBefore(log, cutMs);
  const positives = all.subarray(Math.max(0, all.length - run.positives));
  print(`${all.length} positives before the cut, ${positives.length} trained on`);
  return { log, store, popularity: new Popularity(log), sids, positives, cutMs };
}

/** The run of OneMall that a run's options name. */
export function oneMallRun(
  { preset: named, historyLength, seed, checkpointEvery = 500, epochs = 1 }: WorldRun,
  positives: Int32Array,
  reads: 'queries' | 'events' = 'queries',
): OneMallRun {
  const preset = { ...retrievalPresets[named], ...(reads === 'events' && { queries: 0 }) };
  const steps = epochs * Math.ceil(positives.length / preset.batchSize);
  return {
    name: `onemall-${named}${reads === 'events' ? '-events' : ''}`,
    options: { preset, historyLength, seed, optimizer: steps > WARMUP_STEPS ? { decaySteps: steps } : {} },
    normalizer: 'popular',
    contentStart: true,
    epochs,
    checkpointEvery,
  };
}

/**
 * Simulates, trains and judges by hit rate.
 * @param seeds the same run under each seed, in a folder of its own
 * @returns the report in Markdown; over several seeds a request counts with its mean
 */
export async function runHitRates(...seeds: WorldRun[]): Promise<string> {
  const judged: JudgedModels[] = [];
  for (const run of seeds) judged.push(await runSeed(run));
  const { plan } = seeds[0]!;
  const { names, costs } = judged[0]!;
  const hits = meanOverSeeds(judged.map((of) => of.hits));
  const trained = seeds.map(({ seed }) => seed).join(', ');
  return [
    `World plan ${plan.hash}, seed ${plan.seed}, models' seeds ${trained}; ${hits.length} requests of the last span, 95 % intervals by bootstrap.`,
    hitTable(hits, names),
    ...(costs.length > 1 ? ['', ...costTable(costs)] : []),
  ].join('\n');
}

interface JudgedModels {
  hits: RequestHits[];
  /** Of the lists of models. */
  names: string[];
  /** Of the forms of OneMall. */
  costs: { name: string; cost: RetrievalCost }[];
}

/** Table 6 of the paper but for the hit rates. */
const costTable = (costs: JudgedModels['costs']): string[] => [
  '| list | elements that a token reads | GFLOP of a sample, forward |',
  '|---|---|---|',
  ...costs.map(
    ({ name, cost }) => `| ${name} | ${cost.contextLength} | ${(cost.forwardFlops / 1e9).toFixed(4)} |`,
  ),
];

async function runSeed(run: WorldRun): Promise<JudgedModels> {
  const { print } = run;
  const { log, store, popularity, sids, positives } = await prepareWorld(run);
  const open: { close(): Promise<void> }[] = [];
  try {
    const models: ListModel[] = [];
    const asked = new Set(sids ? run.models : []);
    const costs: JudgedModels['costs'] = [];
    for (const reads of ['queries', 'events'] as const) {
      if (!sids || !asked.has(reads === 'queries' ? 'onemall' : 'onemall-events')) continue;
      const model = oneMallRun(run, positives, reads);
      const { policy, tower } = await trainOneMall(log, sids, positives, model, store, print);
      open.push(policy, tower);
      const shelf = new Shelf(log, sids, popularity);
      models.push(new OneMallLists(model.name, log, sids, shelf, policy, model.normalizer));
      const vectors = new ItemVectorsOf(log, sids, tower, model.normalizer);
      const { temperature } = retrievalPresets[run.preset];
      models.push(new DenseLists(`${model.name}-dense`, log, sids, policy, vectors, popularity, temperature));
      costs.push({ name: model.name, cost: costOf(model, sids) });
    }
    const contents = new ItemVectors(log);
    if (asked.has('sasrec')) {
      const sasrec = await trainSasrec(log, contents, positives, run);
      open.push(sasrec);
      models.push(new SasrecLists('sasrec', log, sasrec, null));
      models.push(new SasrecLists('sasrec-popular', log, sasrec, popularity));
    }
    if (asked.has('tiger')) {
      const tiger = await trainTiger(log, contents, positives, DEPTH, run);
      open.push(tiger);
      models.push(tiger);
    }
    const budgetMs = (run.judgeMinutes ?? Number.POSITIVE_INFINITY) * 60_000;
    const { requests } = run;
    const hits = await judgeLists(log, sids, popularity, models, { requests, budgetMs, store, print });
    return { hits, names: models.map((m) => m.name), costs };
  } finally {
    for (const one of open) await one.close();
    await sids?.close();
  }
}

/** Keys and values projected, as the paper counts. */
function costOf(
  { options: { preset, historyLength } }: OneMallRun,
  { numCodes }: SemanticIds,
): RetrievalCost {
  const layout = sidLayout(SCENARIOS, numCodes);
  return retrievalCost({
    ...{ layout, historyLength, batchSize: preset.batchSize },
    preset: { ...preset, absorb: false },
  });
}

/** Codebooks and codes of the run, trained where they are not on file. */
async function semanticIds(log: WorldLog, store: RunStore, { seed, print }: WorldRun): Promise<SemanticIds> {
  const vectors = new ItemVectors(log);
  const codebooks: Codebook[] = [];
  for (const scenario of SCENARIOS) {
    const files = await store.files(`codebook/${scenario}`);
    if (files) codebooks.push(readCodebook(files));
  }
  if (codebooks.length < SCENARIOS.length) {
    const options = { maxVectors: 65_536, maxIterations: 10, lastLevel: 'fsq', seed } as const;
    codebooks.splice(0, codebooks.length, ...(await trainCodebooks(log, vectors, options, print)));
    for (const codebook of codebooks)
      await store.setFiles(`codebook/${codebook.scenario}`, writeCodebook(codebook));
  }
  const saved = await store.files('codes');
  let codes: Int32Array;
  if (saved) codes = new Int32Array(new Uint8Array(saved.get('codes')!).buffer);
  else {
    codes = await encodeItems(log, vectors, codebooks);
    await store.setFiles('codes', new Map([['codes', new Uint8Array(codes.buffer)]]));
  }
  return SemanticIds.open(log, vectors, codebooks, codes);
}
