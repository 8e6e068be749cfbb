/** What an arm of an RL run learns from besides the positives: requests, rollouts, and a ranker that rewards them. */
import type { Rollout } from '@onemall/contracts';
import { rankerItem } from '@onemall/features';
import {
  type PolicyRuntime,
  type RankerPresetName,
  type RankerRuntime,
  type RewardGroup,
  selectDpoCandidates,
  selectGrpoCandidates,
} from '@onemall/learning';
import { packSid } from '@onemall/retriever/src/stages/build-trie.ts';
import { candidatesOf as foundCandidates } from '@onemall/retriever/src/stages/search-beam.ts';
import { rankerRows, scoreGroup } from '@onemall/reward-scorer/src/stages/score-candidates.ts';
import { hashFraction, type SeededRandom } from '@onemall/service-kit';
import { gpmScale, REWARD, type TopMeans, topMeans } from '../judging/compare-policies.ts';
import { rankerJudgement } from '../judging/judges.ts';
import { asked } from '../lists/list-model.ts';
import { OneMallLists, type Shelf } from '../lists/onemall-lists.ts';
import { SCENARIOS } from '../log/world-log.ts';
import type { PreparedWorld, WorldRun } from '../samples/prepare-world.ts';
import type { SampleEncoder } from '../samples/sample-encoder.ts';
import { CODEBOOK_VERSION, type SemanticIds } from '../samples/semantic-ids.ts';
import { featuresAsOf } from '../samples/training-samples.ts';
import { oneMallRun } from './train-onemall.ts';

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
  /** Weight in the loss of L_RL, the mean over the groups of a step. */
  rlWeight: number;
}

/** A policy that goes on from the base checkpoint. */
export type Arm = 'base' | 'dpo' | 'grpo';

/** An RL run up to where its arms part. */
export interface Study extends PreparedWorld {
  run: RlRun;
  sids: SemanticIds;
  shelf: Shelf;
  encoder: SampleEncoder;
  ranker: RankerRuntime;
  /** S by scenario of the rewards. */
  scales: Record<string, number>;
}

const MAX_ADVANTAGE = 5;
export const DPO_NEGATIVES = 4;

/** Requests whose lists set the scales of the rewards. */
const SCALE_REQUESTS = 60;

/** Requests of the training span with a positive, first by hash of the id: those that RL asks about. */
export function rlRequests({ log, positives }: Study, count: number): number[] {
  const requests = [...new Set(Array.from(positives, (row) => log.exposures.request.at(row)))];
  const hash = (request: number): number => hashFraction(`rollout:${log.requestId(request)}`);
  return requests.sort((a, b) => hash(a) - hash(b)).slice(0, count);
}

/** S by scenario: the base policy's first ten, as the rewarding ranker sees them (model.md, RL). */
export async function rewardScales(study: Study, base: PolicyRuntime): Promise<Record<string, number>> {
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

/** Rollout, reward and choice of candidates, by the code of retriever, reward-scorer and trainer. */
export async function rewardGroup(
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
