/**
 * Table 4 in its shape: a base policy, and what DPO and GRPO make of it with a ranker's rewards, judged by the ground truth and
 * by a second ranker. The three go on from one checkpoint over the same positives; only the reward groups differ.
 */
import { readPolicyManifest } from '@onemall/learning';
import type { RunStore } from './adapters/run-store.ts';
import type { RequestHits } from './judging/hit-rates.ts';
import { type JudgedArms, type JudgedLists, judgeArms } from './judging/judge-arms.ts';
import { OneMallLists, Shelf } from './lists/onemall-lists.ts';
import { type RlFacts, rlReport } from './reports/rl-report.ts';
import { openStore, prepareWorld } from './samples/prepare-world.ts';
import { SampleEncoder } from './samples/sample-encoder.ts';
import { finalsBefore } from './samples/training-samples.ts';
import { type Arm, type RlRun, rewardScales, type Study } from './training/reward-groups.ts';
import { trainArm } from './training/train-arm.ts';
import { oneMallRun, trainOneMall } from './training/train-onemall.ts';
import { trainRanker } from './training/train-ranker.ts';

const ARMS: readonly Arm[] = ['base', 'dpo', 'grpo'];

/**
 * @param seeds runs that differ in seed and folder, one after the other; each goes on from its folder
 * @returns the report in Markdown
 */
export async function runRl(seeds: readonly RlRun[]): Promise<string> {
  const judged: JudgedArms[] = [];
  const facts: RlFacts[] = [];
  for (const run of seeds) {
    judged.push(await runSeed(run));
    const base = await openStore(run).files('rl-base/policy');
    facts.push({ ...run, trieVersion: base && readPolicyManifest(base).trieVersion });
  }
  return rlReport(facts, judged);
}

async function runSeed(run: RlRun): Promise<JudgedArms> {
  const earlier = openStore(run);
  keepToSettings(run, earlier);
  const before = judgedBefore(earlier, run.requests);
  if (before) return before;
  const prepared = await prepareWorld(run);
  const { log, store, sids, positives, popularity, cutMs } = prepared;
  if (!sids) throw new Error('rl needs positives to train on: --positives is 0');
  const { print, historyLength } = run;
  const open: { close(): Promise<void> }[] = [sids];
  try {
    const trained = await trainOneMall(log, sids, positives, oneMallRun(run, positives), store, print);
    const base = trained.policy;
    open.push(base, trained.tower);
    const finals = finalsBefore(log, cutMs);
    const rankerOf = (name: string, half: 0 | 1) =>
      trainRanker(
        log,
        finals,
        {
          name,
          preset: run.rankerPreset,
          seed: run.seed + half,
          userHalf: half,
          historyLength,
          maxSamples: run.rankerSamples,
          ...(run.engine && { engine: run.engine }),
        },
        store,
        print,
      );
    const [ranker, judge] = [await rankerOf('ranker-reward', 0), await rankerOf('ranker-judge', 1)];
    open.push(ranker, judge);
    popularity.follow(log.numRequests - 1);
    const shelf = new Shelf(log, sids, popularity);
    const { normalizer } = oneMallRun(run, positives);
    const encoder = new SampleEncoder(log, sids, base.manifest.historyLength, normalizer);
    const study: Study = { ...prepared, run, sids, shelf, encoder, ranker, scales: {} };
    study.scales = await rewardScales(study, base);
    const arms: OneMallLists[] = [];
    for (const arm of ARMS) {
      const policy = await trainArm(study, arm, base);
      open.push(policy);
      arms.push(new OneMallLists(arm, log, sids, shelf, policy, normalizer));
    }
    return await judgeArms(study, arms, judge);
  } finally {
    for (const one of open.reverse()) await one.close();
  }
}

/** @throws Error when the folder's policies, rankers or arms were made otherwise */
function keepToSettings(run: RlRun, store: RunStore): void {
  const { seed, positives, epochs, preset, historyLength, rankerSamples, rankerPreset } = run;
  const { rlSteps, rolloutWidth, syncSteps, groupsPerStep, groupCandidates, rlWeight, engine } = run;
  const settings = {
    ...{ seed, positives, epochs: epochs ?? 1, preset, historyLength, rankerSamples, rankerPreset },
    ...{ rlSteps, rolloutWidth, syncSteps, groupsPerStep, groupCandidates, rlWeight },
    ...(engine && engine.name !== 'cpu' && { engine: engine.name }),
  };
  const before = store.value<typeof settings>('rl-settings');
  if (before !== undefined && JSON.stringify(before) !== JSON.stringify(settings))
    throw new Error(
      `${store.folder} holds arms of ${JSON.stringify(before)}, asked are ${JSON.stringify(settings)}: name another folder`,
    );
  store.setValue('rl-settings', settings);
}

/** What an earlier start has judged for the same budget, or null. */
function judgedBefore(store: RunStore, budget: number): JudgedArms | null {
  const done = store.value<{ budget: number; requests: number[] }>('judged');
  if (done?.budget !== budget) return null;
  const rowsOf = <Row extends { request: number }>(name: string): Row[] => {
    const rows = new Map(store.lines<Row>(name).map((row) => [row.request, row]));
    return done.requests.map((request) => rows.get(request)!);
  };
  return { lists: rowsOf<JudgedLists>('judged'), hits: rowsOf<RequestHits>('hits') };
}
