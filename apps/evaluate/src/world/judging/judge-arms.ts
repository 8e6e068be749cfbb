/** Judges the arms of an RL run on the last span of a log, request by request. */
import type { RankerRuntime } from '@onemall/learning';
import type { ScenarioName } from '@onemall/simulator/world';
import { asked } from '../lists/list-model.ts';
import type { OneMallLists } from '../lists/onemall-lists.ts';
import type { PreparedWorld, WorldRun } from '../samples/prepare-world.ts';
import type { SemanticIds } from '../samples/semantic-ids.ts';
import { agreement, type TopMeans, topMeans } from './compare-policies.ts';
import { DEPTH, KS, type RequestHits, ranksOf } from './hit-rates.ts';
import {
  hitsOf,
  isJudged,
  type RequestRanks,
  ranksWithoutModel,
  shownItems,
  takeLastClicks,
} from './judge-requests.ts';
import { rankerJudgement, trueJudgement } from './judges.ts';

/** What the judges say of one request's lists, by arm. */
export interface JudgedLists extends RequestRanks {
  scenario: ScenarioName;
  truth: Record<string, TopMeans>;
  second: Record<string, TopMeans>;
  /** Rank correlation of the rewarding ranker with the ground truth in the base policy's list, by depth. */
  agreement: readonly (number | null)[];
}

/** The judged lists of one seed's requests, and the hits of the arms and of the lists that need no model. */
export interface JudgedArms {
  lists: JudgedLists[];
  hits: RequestHits[];
}

/** What judging needs of an RL run. */
interface JudgedStudy extends PreparedWorld {
  run: WorldRun;
  sids: SemanticIds;
  /** The ranker that rewarded, and S by scenario of its rewards. */
  ranker: RankerRuntime;
  scales: Record<string, number>;
}

/**
 * Takes the log through its last span and judges the arms' lists there, while the world stands at each request. What is on file
 * already is not asked again.
 */
export async function judgeArms(
  study: JudgedStudy,
  arms: readonly OneMallLists[],
  judge: RankerRuntime,
): Promise<JudgedArms> {
  const { log, run, sids, popularity, store } = study;
  const { plan } = log;
  const fraction = (run.requests * plan.spec.positions) / plan.testExposures;
  const known = new Map(store.lines<JudgedLists>('judged').map((row) => [row.request, row]));
  const lists: JudgedLists[] = [];
  const candidates: number[] = [];
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
    lists.push(row);
    candidates.push(log.oracle.numCandidates(row.scenario));
    if (lists.length % 50 === 0) run.print(`${lists.length} of about ${run.requests} requests judged`);
  }
  takeLastClicks(log);
  const hits = lists.map((row, i) => hitsOf(log, row, candidates[i]!, KS));
  for (const row of hits) store.append('hits', row);
  store.setValue('judged', { budget: run.requests, requests: lists.map((row) => row.request) });
  return { lists, hits };
}

async function judgeRequest(
  { log, run, popularity, ranker, scales }: JudgedStudy,
  arms: readonly OneMallLists[],
  judge: RankerRuntime,
  request: number,
): Promise<JudgedLists> {
  const scenario = log.scenario(request);
  const row: JudgedLists = {
    ...{ request, scenario, truth: {}, second: {}, agreement: [] },
    ranks: ranksWithoutModel(log, popularity, request),
  };
  for (const arm of arms) {
    const items = await arm.rank(asked(log, request), DEPTH);
    const truth = trueJudgement(log, request, items);
    row.truth[arm.name] = topMeans(truth);
    if (arm.name === 'base') {
      const taught = await rankerJudgement(log, ranker, request, items, run.historyLength);
      row.agreement = agreement(taught, truth, scales[scenario]!);
    }
    row.second[arm.name] = topMeans(await rankerJudgement(log, judge, request, items, run.historyLength));
    row.ranks[arm.name] = ranksOf(items, shownItems(log, request));
  }
  return row;
}
