/** Judges lists on the last span of a log, request by request: the place of each item that was shown in each list. */
import { hashFraction } from '@onemall/service-kit';
import { tasteDrawChance } from '@onemall/simulator/world';
import type { RunStore } from '../adapters/run-store.ts';
import { asked, type ListModel } from '../lists/list-model.ts';
import { oracleLists, popularList } from '../lists/simple-lists.ts';
import type { Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import type { SemanticIds } from '../samples/semantic-ids.ts';
import {
  DEPTH,
  depthsAtShares,
  hitShares,
  KS,
  type RequestHits,
  randomShares,
  ranksOf,
} from './hit-rates.ts';

export const RANDOM = 'random';
export const POPULARITY = 'popularity';
export const ORACLE = 'oracle';
/** No list of a request: how often a taste draw of the logging policy gives one of the K rooms that match the user best. */
export const TASTE_DRAW = 'taste-draw';
const ORACLE_CLICKED = 'oracle-clicked';

/** The test requests that a budget takes: by hash of the id, so that a larger budget holds those of a smaller one. */
export const isJudged = (requestId: string, fraction: number): boolean =>
  hashFraction(`judged:${requestId}`) < fraction;

/** The hits of each judged request. */
export interface JudgedHits {
  /** At each K of `KS`. */
  at: RequestHits[];
  /** At each of `SHARES`, of the scenarios whose lists reach so far. */
  atShares: RequestHits[];
}

/** What the lists made of a request: the place of each item that was shown, in the order of the page. */
export interface RequestRanks {
  request: number;
  ranks: Record<string, number[]>;
}

/**
 * Takes the log through its last span. Every judged request is asked of every model while the world stands at it; what is
 * on file already is not asked again.
 */
export async function judgeLists(
  log: WorldLog,
  sids: SemanticIds | null,
  popularity: Popularity,
  models: readonly ListModel[],
  options: {
    requests: number;
    /** No request is judged any more after so much time; the table is of those that are on file then. */
    budgetMs: number;
    store: RunStore;
    print: (line: string) => void;
  },
): Promise<JudgedHits> {
  const { plan } = log;
  const { store, print } = options;
  const untilMs = performance.now() + options.budgetMs;
  const fraction = (options.requests * plan.spec.positions) / plan.testExposures;
  // the last line of a request is the whole of it
  const known = new Map(store.lines<RequestRanks>('ranks').map((ranks) => [ranks.request, ranks]));
  const candidates = new Map<number, number>();
  while (log.numExposures < plan.trainExposures + plan.testExposures) {
    const request = log.nextRequest();
    if (!isJudged(log.requestId(request), fraction)) continue;
    const before = known.get(request);
    const missing = models.filter((m) => before?.ranks[m.name] === undefined);
    if (!before || missing.length > 0) {
      if (performance.now() >= untilMs) continue;
      popularity.follow(request);
      await sids?.followRooms();
      const ranks = await judgeRequest(log, popularity, missing, request, before);
      known.set(request, ranks);
      store.append('ranks', ranks);
    }
    candidates.set(request, log.oracle.numCandidates(log.scenario(request)));
    if (candidates.size % 100 === 0) print(`${candidates.size} of about ${options.requests} requests judged`);
  }
  takeLastClicks(log);
  const hits: JudgedHits = { at: [], atShares: [] };
  for (const [request, n] of candidates) {
    hits.at.push(hitsOf(log, known.get(request)!, n, KS));
    const depths = depthsAtShares(n);
    if (depths) hits.atShares.push(withTasteDraw(hitsOf(log, known.get(request)!, n, depths), n, depths));
  }
  return hits;
}

async function judgeRequest(
  log: WorldLog,
  popularity: Popularity,
  models: readonly ListModel[],
  request: number,
  before: RequestRanks | undefined,
): Promise<RequestRanks> {
  const ranks = before ? { ...before.ranks } : ranksWithoutModel(log, popularity, request);
  for (const model of models)
    ranks[model.name] = ranksOf(await model.rank(asked(log, request), DEPTH), shownItems(log, request));
  return { request, ranks };
}

/** The items of a request's page, in its order. */
export function shownItems(log: WorldLog, request: number): Int32Array {
  const [from, to] = log.exposuresOf(request);
  return log.exposures.item.rows().subarray(from, to);
}

/** Places in the lists that need no model; ask while the world stands at the request. */
export function ranksWithoutModel(
  log: WorldLog,
  popularity: Popularity,
  request: number,
): RequestRanks['ranks'] {
  const shown = shownItems(log, request);
  const oracle = oracleLists(log, request, DEPTH);
  return {
    [POPULARITY]: ranksOf(popularList(log, popularity, log.scenario(request), DEPTH), shown),
    [ORACLE]: ranksOf(oracle.viewed, shown),
    [ORACLE_CLICKED]: ranksOf(oracle.clicked, shown),
  };
}

/** Hit rates of the viewed and of the clicked items, now that the clicks are known, see `takeLastClicks`. */
export function hitsOf(
  log: WorldLog,
  { request, ranks }: RequestRanks,
  numCandidates: number,
  ks: readonly number[],
): RequestHits {
  const [from] = log.exposuresOf(request);
  const { clickMs } = log.exposures;
  const hits: RequestHits = { request, scenario: log.scenario(request), viewed: {}, clicked: {} };
  const random = randomShares(numCandidates, ks);
  hits.viewed[RANDOM] = random;
  for (const [name, places] of Object.entries(ranks)) {
    const ofClicked = hitShares(
      places.filter((_, position) => clickMs.at(from + position) > 0),
      ks,
    );
    if (name !== ORACLE_CLICKED) hits.viewed[name] = hitShares(places, ks)!;
    if (ofClicked) hits.clicked[RANDOM] = random;
    if (ofClicked && name !== ORACLE) hits.clicked[name === ORACLE_CLICKED ? ORACLE : name] = ofClicked;
  }
  return hits;
}

function withTasteDraw(hits: RequestHits, numRooms: number, depths: readonly number[]): RequestHits {
  if (hits.scenario === 'live_stream')
    hits.viewed[TASTE_DRAW] = depths.map((k) => tasteDrawChance(k, numRooms));
  return hits;
}

/** Takes the log on until the clicks of its last pages are known. */
export function takeLastClicks(log: WorldLog): void {
  const longestMs = Math.max(...Object.values(log.plan.scenarios).map((s) => s.clickWindowMs));
  log.takeUntil(log.requests.timeMs.at(log.numRequests - 1) + longestMs);
}
