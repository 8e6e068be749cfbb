/** A run up to the cut: what models train on. Finished codebooks and codes are read from its folder. */
import type { EngineOptions, RetrievalPresetName } from '@onemall/learning';
import { type Codebook, readCodebook, writeCodebook } from '@onemall/quantization';
import { RunStore } from '../adapters/run-store.ts';
import type { EvaluationPlan } from '../log/plan.ts';
import { Popularity } from '../log/popularity.ts';
import { SCENARIOS, WorldLog } from '../log/world-log.ts';
import { encodeItems, ItemVectors, SemanticIds, trainCodebooks } from './semantic-ids.ts';
import { positivesBefore } from './training-samples.ts';

/**
 * onemall-events: without Query-Formers, its decoder reads every event of the histories (paper, table 6). onemall-clicks: histories of
 * clicks alone, as the baselines have them.
 */
export const ONEMALL_FORMS = ['onemall', 'onemall-events', 'onemall-clicks'] as const;
export type OneMallForm = (typeof ONEMALL_FORMS)[number];
export const BASELINES = ['sasrec', 'tiger'] as const;
export const WORLD_MODELS = [...ONEMALL_FORMS, ...BASELINES] as const;
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
  /** What trains; onnxruntime on the CPU where absent. */
  engine?: EngineOptions;
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
