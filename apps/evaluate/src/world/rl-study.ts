/**
 * Table 4 in its shape: a base policy, and what DPO and GRPO make of it with a ranker's rewards, judged by the ground truth and
 * by a second ranker. The three go on from one checkpoint over the same positives; only the reward groups differ.
 */
import type { Rollout } from '@onemall/contracts';
import { rankerItem } from '@onemall/features';
import {
  loadPolicy,
  type PolicyRuntime,
  type RankerPresetName,
  type RankerRuntime,
  type RetrievalSample,
  type RewardGroup,
  retrievalPresets,
  selectDpoCandidates,
  selectGrpoCandidates,
} from '@onemall/learning';
import { packSid } from '@onemall/retriever/src/stages/build-trie.ts';
import { candidatesOf as foundCandidates } from '@onemall/retriever/src/stages/search-beam.ts';
import { rankerRows, scoreGroup } from '@onemall/reward-scorer/src/stages/score-candidates.ts';
import { hashFraction, SeededRandom } from '@onemall/service-kit';
import type { RunStore } from './adapters/run-store.ts';
import { DEPTH, hitShares, ranksOf } from './hit-rates.ts';
import { isJudged } from './hit-table.ts';
import { agreement, gpmScale, REWARD, type TopMeans, topMeans } from './judge-lists.ts';
import { OneMallLists, openTrainer, passOrder, SampleEncoder, Shelf, trainOneMall } from './onemall-model.ts';
import { rankerJudgement, trainRanker, trueJudgement } from './rankers.ts';
import { type JudgedArms, rlReport } from './rl-report.ts';
import { oneMallRun, openStore, type PreparedWorld, prepareWorld, type WorldRun } from './run-world.ts';
import { featuresAsOf, finalsBefore } from './samples.ts';
import { CODEBOOK_VERSION, type SemanticIds } from './semantic-ids.ts';
import { SCENARIOS, type WorldLog } from './world-log.ts';

export interface RlRun extends WorldRun {
  /** Steps that each arm takes from the base checkpoint on. */
  rlSteps: number;
  /** Candidates of a rollout. */
  rolloutWidth: number;
  rankerSamples: number;
  rankerPreset: RankerPresetName;
  /** Steps between two copies of the policy into the reference. */
  syncSteps: number;
  /** Reward groups in one step. */
  groupsPerStep: number;
  /** Candidates of a group that train in GRPO; DPO takes o+ and four o-. */
  groupCandidates: number;
  /** Weight of L_RL in the loss. */
  rlWeight: number;
}

type Arm = 'base' | 'dpo' | 'grpo';
const ARMS: readonly Arm[] = ['base', 'dpo', 'grpo'];
const MAX_ADVANTAGE = 5;
const DPO_NEGATIVES = 4;
/** Learning rate of the arms, as a share of the preset's. */
const ARM_RATE = 0.2;
/** Requests whose lists set the scales of the rewards. */
const SCALE_REQUESTS = 60;

interface Study extends PreparedWorld {
  run: RlRun;
  sids: SemanticIds;
  shelf: Shelf;
  encoder: SampleEncoder;
  ranker: RankerRuntime;
  /** S by scenario of the rewards. */
  scales: Record<string, number>;
}

/**
 * @param seeds runs that differ in seed and folder, one after the other; each goes on from its folder
 * @returns the report in Markdown
 */
export async function runRl(seeds: readonly RlRun[]): Promise<string> {
  const judged: JudgedArms[][] = [];
  for (const run of seeds) judged.push(await runSeed(run));
  return rlReport(seeds, judged);
}

async function runSeed(run: RlRun): Promise<JudgedArms[]> {
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

/** @throws Error when the folder's arms were made otherwise */
function keepToSettings(run: RlRun, store: RunStore): void {
  const { rlSteps, rolloutWidth, syncSteps, groupsPerStep, groupCandidates, rlWeight } = run;
  const settings = { rlSteps, rolloutWidth, syncSteps, groupsPerStep, groupCandidates, rlWeight };
  const before = store.value<typeof settings>('rl-settings');
  if (before !== undefined && JSON.stringify(before) !== JSON.stringify(settings))
    throw new Error(
      `${store.folder} holds arms of ${JSON.stringify(before)}, asked are ${JSON.stringify(settings)}: name another folder`,
    );
  store.setValue('rl-settings', settings);
}

/** The newest requests of the training span with a positive, by hash of the id: those that RL asks about. */
function rlRequests({ log, positives }: Study, count: number): number[] {
  const requests = [...new Set(Array.from(positives, (row) => log.exposures.request.at(row)))];
  const hash = (request: number): number => hashFraction(`rollout:${log.requestId(request)}`);
  return requests.sort((a, b) => hash(a) - hash(b)).slice(0, count);
}

const asked = (log: WorldLog, request: number) => ({
  request,
  scenario: log.scenario(request),
  requestTimeMs: log.requests.timeMs.at(request),
});

/** S by scenario: the base policy's first ten, as the rewarding ranker sees them (model.md, RL). */
async function rewardScales(study: Study, base: PolicyRuntime): Promise<Record<string, number>> {
  const { log, sids, shelf, ranker, run } = study;
  const lists = new OneMallLists('base', log, sids, shelf, base, oneMallRun(run, study.positives).normalizer);
  const judged = new Map<string, TopMeans[]>(SCENARIOS.map((s) => [s, []]));
  for (const request of rlRequests(study, SCALE_REQUESTS)) {
    const items = await lists.rank(asked(log, request), 10);
    if (items.length > 0)
      judged
        .get(log.scenario(request))!
        .push(topMeans(await rankerJudgement(log, ranker, request, items, run.historyLength)));
  }
  return Object.fromEntries(
    [...judged].filter(([, of]) => of.length > 0).map(([scenario, of]) => [scenario, gpmScale(of)]),
  );
}

/** Goes on from the base checkpoint; reward groups in each step for the arms with rewards. */
async function trainArm(study: Study, arm: Arm, base: PolicyRuntime): Promise<PolicyRuntime> {
  const { log, run, sids, store, positives, encoder } = study;
  const name = `rl-${arm}/policy`;
  const done = await store.files(name);
  if (done) return loadPolicy(done);
  const model = oneMallRun(run, positives);
  const candidatesPerGroup = arm === 'grpo' ? run.groupCandidates : 1 + DPO_NEGATIVES;
  const rl = arm === 'base' ? {} : { rl: { form: arm, maxGroups: run.groupsPerStep, candidatesPerGroup } };
  // the base training ended at a small rate; the arms go on at one of their own, the same for all
  const optimizer = { learningRate: ARM_RATE * retrievalPresets[run.preset].learningRate };
  const { trainer } = await openTrainer(
    { ...model, options: { ...model.options, ...rl, optimizer } },
    sids,
    store,
  );
  const publish = (version: string) =>
    trainer.exportPolicy({
      policyVersion: version,
      codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, CODEBOOK_VERSION])),
      beamWidths: [64, 512],
      normalizer: model.normalizer,
    });
  let reference = base;
  try {
    const requests = arm === 'base' ? [] : rlRequests(study, run.rlSteps * run.groupsPerStep);
    const random = new SeededRandom(run.seed);
    const newest = Math.max(0, positives.length - run.rlSteps * trainer.batchSize);
    const rows = passOrder(log, positives.subarray(newest));
    encoder.startPass();
    let taken = 0;
    const sums = { groups: 0, reward: 0, kl: 0, skipped: 0, firstLogRatio: 0 };
    for (let step = 0; step < run.rlSteps && taken < rows.length; step++) {
      const samples: RetrievalSample[] = [];
      while (samples.length < trainer.batchSize && taken < rows.length) {
        const sample = encoder.positive(rows[taken++]!);
        if (sample) samples.push(sample);
      }
      const lists = new OneMallLists(arm, log, sids, study.shelf, reference, model.normalizer);
      const groups: RewardGroup[] = [];
      for (const request of requests.slice(step * run.groupsPerStep, (step + 1) * run.groupsPerStep)) {
        const group = await rewardGroup(study, lists, request, arm, random);
        if (!group) {
          sums.skipped++;
          continue;
        }
        groups.push(group);
        sums.reward += group.rewardMean;
      }
      sums.groups += groups.length;
      const { rl: figures } = await trainer.step({ samples, groups }, { rlWeight: run.rlWeight });
      sums.kl += figures?.kl ?? 0;
      // the reference is the policy itself at the first step: whatever differs here is an error of the engines
      if (figures && sums.groups === groups.length) sums.firstLogRatio = figures.maxAbsLogRatio;
      if ((step + 1) % run.syncSteps !== 0) continue;
      run.print(`${arm} step ${step + 1}: ${JSON.stringify(sums)}`);
      if (arm === 'base') continue;
      if (reference !== base) await reference.close();
      reference = await loadPolicy(await publish(`${arm}-${step + 1}`));
    }
    const files = await publish(arm);
    await store.setFiles(name, files, sums);
    return await loadPolicy(files);
  } finally {
    if (reference !== base) await reference.close();
    await trainer.close();
  }
}

/** Rollout, reward and choice of candidates, by the code of retriever, reward-scorer and trainer. */
async function rewardGroup(
  study: Study,
  lists: OneMallLists,
  request: number,
  arm: Arm,
  random: SeededRandom,
): Promise<(RewardGroup & { rewardMean: number }) | null> {
  const { log, run, ranker, scales, encoder, shelf } = study;
  const { normalizer } = oneMallRun(run, study.positives);
  const of = asked(log, request);
  const found = foundCandidates(await lists.beam(of, run.rolloutWidth));
  // by the arm's normalizer: the trainer computes them among the same children
  const logProbs = new Map(found.map(({ packed, score }) => [packed, score]));
  const rollout: Rollout = {
    requestId: log.requestId(request),
    userId: `u${log.requests.user.at(request)}`,
    scenario: of.scenario,
    requestTimeMs: of.requestTimeMs,
    policyVersion: lists.name,
    codebookVersion: CODEBOOK_VERSION,
    history: log.historyBefore(request, run.historyLength),
    candidates: found.map(({ c1, c2, c3, tokenLogProbs, packed }) => ({
      c1,
      c2,
      c3,
      tokenLogProbs,
      itemId: lists.firstItem(of, packed),
    })),
    createdMs: of.requestTimeMs,
  };
  const rows = rankerRows(rollout, (itemId, timeMs) =>
    rankerItem(itemId, featuresAsOf(log, log.itemNumber(itemId), timeMs)),
  );
  const scores = await ranker.score(rows.dense, rows.ids, rows.numRows);
  const identity = { rankerVersion: ranker.manifest.rankerVersion, egpmScale: scales };
  const options = { weights: REWARD, maxAdvantage: MAX_ADVANTAGE, createdMs: of.requestTimeMs };
  const scored = scoreGroup(rows, scores, 0, identity, options);
  if ('skipped' in scored) return null;
  const { candidates, rewardMean } = scored.batch;
  const chosen =
    arm === 'dpo'
      ? selectDpoCandidates(candidates, random, DPO_NEGATIVES)
      : selectGrpoCandidates(candidates, random, run.groupCandidates);
  if (chosen.length < 2) return null;
  return {
    request: encoder.request(request),
    rewardMean,
    candidates: chosen.map(({ c1, c2, c3, advantage }) => ({
      codes: [c1, c2, c3],
      refLogProb: logProbs.get(packSid({ c1, c2, c3 }))!,
      advantage,
      ...(normalizer !== 'codes' && {
        children: shelf.children(normalizer, { scenario: of.scenario, c1, c2, c3 }, of.requestTimeMs),
      }),
    })),
  };
}

/**
 * Takes the log through its last span and judges the arms' lists there, while the world stands at each request. What is on file
 * already is not asked again.
 */
async function judgeArms(
  study: Study,
  arms: readonly OneMallLists[],
  judge: RankerRuntime,
): Promise<JudgedArms[]> {
  const { log, run, sids, popularity, store } = study;
  const { plan } = log;
  const fraction = (run.requests * plan.spec.positions) / plan.testExposures;
  const known = new Map(store.lines<JudgedArms>('judged').map((row) => [row.request, row]));
  const judged: JudgedArms[] = [];
  while (log.numExposures < plan.trainExposures + plan.testExposures) {
    const request = log.nextRequest();
    if (!isJudged(log.requestId(request), fraction)) continue;
    let row = known.get(request);
    if (!row) {
      popularity.follow(request);
      await sids.followRooms();
      row = await judgeRequest(study, arms, judge, request);
      store.append('judged', row);
    }
    judged.push(row);
    if (judged.length % 50 === 0) run.print(`${judged.length} of about ${run.requests} requests judged`);
  }
  store.setValue('judged', { budget: run.requests, requests: judged.map((row) => row.request) });
  return judged;
}

async function judgeRequest(
  { log, run, ranker, scales }: Study,
  arms: readonly OneMallLists[],
  judge: RankerRuntime,
  request: number,
): Promise<JudgedArms> {
  const [from, to] = log.exposuresOf(request);
  const viewed = log.exposures.item.rows().subarray(from, to);
  const row: JudgedArms = { request, scenario: log.scenario(request), truth: {}, second: {}, viewed: {} };
  for (const arm of arms) {
    const items = await arm.rank(asked(log, request), DEPTH);
    const truth = trueJudgement(log, request, items);
    row.truth[arm.name] = topMeans(truth);
    if (arm.name === 'base') {
      const taught = await rankerJudgement(log, ranker, request, items, run.historyLength);
      row.agreement = agreement(taught, truth, scales[row.scenario]!);
    }
    row.second[arm.name] = topMeans(await rankerJudgement(log, judge, request, items, run.historyLength));
    row.viewed[arm.name] = hitShares(ranksOf(items, viewed))!;
  }
  return row;
}

/** What an earlier start has judged for the same budget, or null. */
function judgedBefore(store: RunStore, budget: number): JudgedArms[] | null {
  const done = store.value<{ budget: number; requests: number[] }>('judged');
  if (done?.budget !== budget) return null;
  const rows = new Map(store.lines<JudgedArms>('judged').map((row) => [row.request, row]));
  return done.requests.map((request) => rows.get(request)!);
}
