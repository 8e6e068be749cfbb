/** Judges the arms of an RL run on the last span of a log, request by request. */
import type { RankerRuntime } from '@onemall/learning';
import { asked } from '../lists/list-model.ts';
import type { OneMallLists } from '../lists/onemall-lists.ts';
import type { PreparedWorld, WorldRun } from '../samples/prepare-world.ts';
import type { SemanticIds } from '../samples/semantic-ids.ts';
import { agreement, type TopMeans, topMeans } from './compare-policies.ts';
import { DEPTH, hitShares, ranksOf } from './hit-rates.ts';
import { isJudged } from './judge-requests.ts';
import { rankerJudgement, trueJudgement } from './judges.ts';

/** What the judges say of one request's lists, by arm. */
export interface JudgedArms {
  request: number;
  scenario: string;
  truth: Record<string, TopMeans>;
  second: Record<string, TopMeans>;
  /** Shares of the viewed items among the first K, one for each of `KS`. */
  viewed: Record<string, readonly number[]>;
  /** Rank correlation of the rewarding ranker with the ground truth in the base policy's list, by depth. Rows of earlier builds have none. */
  agreement?: readonly (number | null)[];
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
  { log, run, ranker, scales }: JudgedStudy,
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
