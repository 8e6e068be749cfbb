/** `evaluate world`: hit rates on the evaluation world. Stops and goes on; `--folder` names the run. */
import { parseArgs } from 'node:util';
import type { PolicyRuntime, RetrievalPresetName } from '@onemall/learning';
import type { Codebook } from '@onemall/quantization';
import { readCodebook, writeCodebook } from '@onemall/quantization';
import { RunStore } from './adapters/run-store.ts';
import { hitTable, judgeLists } from './hit-table.ts';
import type { ListModel } from './lists.ts';
import { OneMallLists, Shelf, trainOneMall } from './onemall-model.ts';
import { type EvaluationPlan, readEvaluationPlan } from './plan.ts';
import { positivesBefore } from './samples.ts';
import { encodeItems, ItemVectors, SemanticIds, trainCodebooks } from './semantic-ids.ts';
import { Popularity } from './simple-lists.ts';
import { SCENARIOS, WorldLog } from './world-log.ts';

export interface WorldRun {
  plan: EvaluationPlan;
  folder: string;
  /** Newest positives before the cut that models train on, at most; 0 trains none and prints the lists that need no model. */
  positives: number;
  /** Requests of the last span that are judged, about. */
  requests: number;
  preset: RetrievalPresetName;
  historyLength: number;
  seed: number;
  /** Steps between checkpoints; default 500. */
  checkpointEvery?: number;
  print: (line: string) => void;
}

/** Simulates, trains and judges; returns the report in Markdown. */
export async function runWorld(run: WorldRun): Promise<string> {
  const { plan, print } = run;
  const store = new RunStore(run.folder, `plan ${plan.hash}`);
  const log = new WorldLog(plan);
  print(`simulating ${plan.trainExposures} exposures`);
  while (log.numExposures < plan.trainExposures) log.nextRequest();
  const cutMs = log.requests.timeMs.at(log.numRequests - 1);
  const popularity = new Popularity(log);
  const sids = run.positives > 0 ? await semanticIds(log, store, run) : null;
  const policies: PolicyRuntime[] = [];
  try {
    const models: ListModel[] = [];
    if (sids) {
      await sids.followRooms();
      const all = positivesBefore(log, cutMs);
      const rows = all.subarray(Math.max(0, all.length - run.positives));
      print(`${all.length} positives before the cut, ${rows.length} trained on`);
      const { preset, historyLength, seed, checkpointEvery = 500 } = run;
      const name = `onemall-${preset}`;
      const options = { preset, historyLength, seed };
      const model = { name, options, epochs: 1, checkpointEvery };
      policies.push(await trainOneMall(log, sids, rows, model, store, print));
      models.push(new OneMallLists(name, log, sids, new Shelf(log, sids, popularity), policies[0]!));
    }
    const hits = await judgeLists(log, sids, popularity, models, { requests: run.requests, store, print });
    const names = models.map((m) => m.name);
    return [
      `World plan ${plan.hash}, seed ${plan.seed}; ${hits.length} requests of the last span, 95 % intervals by bootstrap.`,
      hitTable(hits, names),
    ].join('\n');
  } finally {
    for (const policy of policies) await policy.close();
    await sids?.close();
  }
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

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      folder: { type: 'string', default: '.data/evaluate/world' },
      positives: { type: 'string', default: '200000' },
      requests: { type: 'string', default: '20000' },
      preset: { type: 'string', default: 'small' },
      history: { type: 'string', default: '50' },
      seed: { type: 'string', default: '1' },
    },
  });
  const report = await runWorld({
    plan: readEvaluationPlan(),
    folder: values.folder,
    positives: Number(values.positives),
    requests: Number(values.requests),
    preset: values.preset as RetrievalPresetName,
    historyLength: Number(values.history),
    seed: Number(values.seed),
    print: (line) => console.error(`${new Date().toISOString().slice(11, 19)} ${line}`),
  });
  console.log(report);
}
