/** Lists that need no model: what was most viewed, and what the oracle knows. */
import type { ScenarioName } from '@onemall/simulator/world';
import { Column } from './columns.ts';
import type { WorldLog } from './world-log.ts';

/** How often items were shown and clicked so far; a click counts as much as ten views, as in the retriever. */
const CLICK_WEIGHT = 10;

/** Popularity from the log up to the newest request: its own exposures and what came after count for nothing. */
export class Popularity {
  readonly #log: WorldLog;
  readonly #counts = Column.ints();
  #takenExposures = 0;
  #takenClicks = 0;

  constructor(log: WorldLog) {
    this.#log = log;
  }

  /** Counts the exposures and clicks before this request. */
  follow(request: number): void {
    const [end] = this.#log.exposuresOf(request);
    this.#take(end, this.#log.requests.timeMs.at(request));
  }

  /** Counts the exposures of requests and the clicks before this moment. */
  followUntil(timeMs: number): void {
    const { exposures, numRequests, requests } = this.#log;
    const request =
      this.#takenExposures < exposures.item.length ? exposures.request.at(this.#takenExposures) : numRequests;
    let end = request;
    while (end < numRequests && requests.timeMs.at(end) < timeMs) end++;
    this.#take(end < numRequests ? requests.firstExposure.at(end) : this.#log.numExposures, timeMs);
  }

  of(item: number): number {
    return item < this.#counts.length ? this.#counts.at(item) : 0;
  }

  #take(endExposures: number, clicksBeforeMs: number): void {
    const { clicked, exposures } = this.#log;
    while (this.#counts.length < this.#log.numItems) this.#counts.push(0);
    const count = (row: number, weight: number): void => {
      const item = exposures.item.at(row);
      this.#counts.set(item, this.#counts.at(item) + weight);
    };
    while (this.#takenExposures < endExposures) count(this.#takenExposures++, 1);
    for (; this.#takenClicks < clicked.length; this.#takenClicks++) {
      const row = clicked.at(this.#takenClicks);
      if (exposures.clickMs.at(row) >= clicksBeforeMs) break;
      count(row, CLICK_WEIGHT);
    }
  }

  /** The k most popular candidates of now, most popular first. */
  top(scenario: ScenarioName, k: number): Int32Array {
    const candidates = candidatesOf(this.#log, scenario);
    const scores = Float64Array.from(candidates, (item) => this.of(item));
    return topOf(scores, k).map((c) => candidates[c]!);
  }
}

/** Item numbers of all candidates of now, in the oracle's order. */
export function candidatesOf(log: WorldLog, scenario: ScenarioName): Int32Array {
  if (scenario === 'live_stream') return log.openRooms();
  const { catalogue } = log.world;
  const first = scenario === 'short_video' ? catalogue.numProducts : 0;
  return Int32Array.from({ length: log.oracle.numCandidates(scenario) }, (_, i) => first + i);
}

/** Indices of the k greatest scores, greatest first, equal ones by index. */
export function topOf(scores: ArrayLike<number>, k: number): Int32Array {
  const least = k < scores.length ? kthGreatest(Float64Array.from(scores), k) : Number.NEGATIVE_INFINITY;
  const kept: number[] = [];
  for (let i = 0; i < scores.length; i++) if (scores[i]! >= least) kept.push(i);
  return Int32Array.from(kept.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, k));
}

/** Quickselect (Hoare); reorders the values. @param k from 1 to the number of values */
function kthGreatest(values: Float64Array, k: number): number {
  let low = 0;
  let high = values.length - 1;
  const wanted = k - 1;
  while (low < high) {
    const pivot = values[(low + high) >> 1]!;
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i]! > pivot) i++;
      while (values[j]! < pivot) j--;
      if (i > j) break;
      const swap = values[i]!;
      values[i++] = values[j]!;
      values[j--] = swap;
    }
    if (wanted <= j) high = j;
    else if (wanted >= i) low = i;
    else break;
  }
  return values[wanted]!;
}

/**
 * What nobody can beat but by luck: the order by the exact chance that the logging policy shows an item, and for clicked items by
 * that chance times the exact pCtr.
 */
export function oracleLists(
  log: WorldLog,
  request: number,
  k: number,
): { viewed: Int32Array; clicked: Int32Array } {
  const scenario = log.scenario(request);
  const userId = `u${log.requests.user.at(request)}`;
  const candidates = candidatesOf(log, scenario);
  const chances = log.oracle.viewChances(userId, scenario);
  const { pCtr } = log.oracle.truths(userId, log.newestWant, scenario);
  const clicks = chances.map((chance, c) => chance * pCtr[c]!);
  const itemsOf = (scores: Float64Array): Int32Array => topOf(scores, k).map((c) => candidates[c]!);
  return { viewed: itemsOf(chances), clicked: itemsOf(clicks) };
}
