/** `evaluate -- world`: simulates, trains and judges by hit rate. A run that is stopped goes on from its folder. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { sidLayout } from '@onemall/features';
import { retrievalPresets } from '@onemall/learning';
import { type RetrievalCost, retrievalCost } from '@onemall/learning/sequences';
import { DEPTH, meanOverSeeds } from './judging/hit-rates.ts';
import { type JudgedHits, judgeLists } from './judging/judge-requests.ts';
import { DenseLists, ItemVectorsOf } from './lists/dense-lists.ts';
import type { ListModel } from './lists/list-model.ts';
import { OneMallLists, Shelf } from './lists/onemall-lists.ts';
import { SasrecLists } from './lists/sasrec-lists.ts';
import { TigerLists } from './lists/tiger-lists.ts';
import { SCENARIOS } from './log/world-log.ts';
import { accuracyTable, type ModelAccuracy } from './reports/accuracy-table.ts';
import {
  againstTable,
  costTable,
  differenceTable,
  hitTable,
  type ModelCost,
  shareTable,
} from './reports/hit-table.ts';
import { lossPicture } from './reports/loss-picture.ts';
import { maskedBy } from './reports/rl-report.ts';
import { BASELINES, ONEMALL_FORMS, prepareWorld, type WorldRun } from './samples/prepare-world.ts';
import { ItemVectors, type SemanticIds } from './samples/semantic-ids.ts';
import { readCurve } from './training/loss-curve.ts';
import { addFigures, emptyPass } from './training/pass-figures.ts';
import { type OneMallRun, oneMallRun, trainOneMall } from './training/train-onemall.ts';
import { trainSasrec } from './training/train-sasrec.ts';
import { trainTiger } from './training/train-tiger.ts';

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
  const hits = meanOverSeeds(judged.map((of) => of.hits.at));
  const atShares = meanOverSeeds(judged.map((of) => of.hits.atShares));
  const accuracies = pooled(judged.map((of) => of.accuracies));
  const trained = seeds.map(({ seed }) => seed).join(', ');
  return [
    `World plan ${plan.hash}, seed ${plan.seed}, models' seeds ${trained}; ${hits.length} requests of the last span, 95 % intervals by bootstrap.${maskedBy(judged)}`,
    '',
    ...hitTable(hits, names),
    ...(names.length > 0 ? ['', ...againstTable(hits, names)] : []),
    ...(atShares.length > 0
      ? [
          '',
          'At equal shares of the candidates, for worlds of other sizes; taste-draw: how often a taste draw of the logging policy gives one of the rooms in that share that match the user best.',
          '',
          ...shareTable(atShares, names),
        ]
      : []),
    ...(accuracies.length > 0 ? ['', ...accuracyTable(accuracies)] : []),
    ...(costs.length > 1 ? ['', ...costTable(costs)] : []),
    ...(names.length > 0 ? ['', ...differenceTable(hits, names)] : []),
  ].join('\n');
}

/** Those of all seeds together. */
function pooled(bySeed: readonly (readonly ModelAccuracy[])[]): ModelAccuracy[] {
  return bySeed[0]!.map(({ name }, model) => {
    const pass = emptyPass();
    for (const models of bySeed)
      for (const part of ['all', 'end'] as const) addFigures(pass[part], models[model]!.pass[part]);
    return { name, pass };
  });
}

interface JudgedModels {
  hits: JudgedHits;
  /** Of the lists of models. */
  names: string[];
  /** Of the forms of OneMall. */
  costs: ModelCost[];
  /** Of OneMall's training. */
  trieVersion?: string | undefined;
  accuracies: ModelAccuracy[];
}

async function runSeed(run: WorldRun): Promise<JudgedModels> {
  const { print } = run;
  const { log, store, popularity, sids, positives } = await prepareWorld(run);
  const open: { close(): Promise<void> }[] = [];
  try {
    const models: ListModel[] = [];
    const asked = new Set(sids ? run.models : []);
    const costs: ModelCost[] = [];
    let trieVersion: string | undefined;
    const accuracies: ModelAccuracy[] = [];
    for (const form of ONEMALL_FORMS) {
      if (!sids || !asked.has(form)) continue;
      const model = oneMallRun(run, positives, form);
      const { policy, tower, pass } = await trainOneMall(log, sids, positives, model, store, print);
      open.push(policy, tower);
      ({ trieVersion } = policy.manifest);
      const shelf = new Shelf(log, sids, popularity);
      const { name, normalizer, reads } = model;
      models.push(new OneMallLists(name, log, sids, shelf, policy, normalizer, reads));
      const vectors = new ItemVectorsOf(log, sids, tower, normalizer);
      const { temperature } = retrievalPresets[run.preset];
      models.push(
        new DenseLists(`${name}-dense`, log, sids, policy, vectors, popularity, temperature, reads),
      );
      costs.push({ name, cost: costOf(model, sids) });
      accuracies.push({ name, pass });
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
      models.push(new TigerLists('tiger', tiger, null));
      models.push(new TigerLists('tiger-popular', tiger, popularity));
    }
    const trained = [...costs.map(({ name }) => name), ...BASELINES.filter((name) => asked.has(name))];
    const curves = trained.flatMap((name) => readCurve(run.folder, name) ?? []);
    if (curves.length > 0) writeFileSync(path.join(run.folder, 'loss.svg'), lossPicture(curves));
    const budgetMs = (run.judgeMinutes ?? Number.POSITIVE_INFINITY) * 60_000;
    const { requests } = run;
    const hits = await judgeLists(log, sids, popularity, models, { requests, budgetMs, store, print });
    return { hits, names: models.map((m) => m.name), costs, accuracies, trieVersion };
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
