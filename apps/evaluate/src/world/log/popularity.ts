/** How popular the items of a log are as of a moment, and which of them are candidates. */
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
}

/** Item numbers of all candidates of now, in the oracle's order. */
export function candidatesOf(log: WorldLog, scenario: ScenarioName): Int32Array {
  if (scenario === 'live_stream') return log.openRooms();
  const { catalogue } = log.world;
  const first = scenario === 'short_video' ? catalogue.numProducts : 0;
  return Int32Array.from({ length: log.oracle.numCandidates(scenario) }, (_, i) => first + i);
}
