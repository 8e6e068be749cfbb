/**
 * The ground truth of every candidate of a request at once, for evaluation only: nothing of it reaches the log. Ask inside
 * `World.onRequest` or before the next record is taken, while users and rooms are as they were at the request.
 */
import { type ScenarioName, viewChances } from './logging-policy.ts';
import { trueScore } from './truth.ts';
import type { World } from './world.ts';

export interface Truths {
  /** float32 [candidates], see `TrueScore`. */
  pCtr: Float32Array;
  pCtcvr: Float32Array;
  expectedValueCents: Float32Array;
}

export class Oracle {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  numCandidates(scenario: ScenarioName): number {
    const { catalogue, rooms } = this.#world;
    if (scenario === 'live_stream') return rooms.open.length;
    return scenario === 'short_video' ? catalogue.size - catalogue.numProducts : catalogue.numProducts;
  }

  /** Id of a candidate by its index: cards and videos in order, rooms by row. */
  itemId(scenario: ScenarioName, candidate: number): string {
    const { catalogue, rooms } = this.#world;
    if (scenario === 'live_stream') return rooms.open[candidate]!.liveId;
    return catalogue.itemId(candidate + (scenario === 'short_video' ? catalogue.numProducts : 0));
  }

  /** @throws Error for a user that is not of this world */
  truths(userId: string, want: Float32Array, scenario: ScenarioName): Truths {
    const { catalogue, rooms, spec, users } = this.#world;
    const user = users.byId(userId);
    const n = this.numCandidates(scenario);
    const first = scenario === 'short_video' ? catalogue.numProducts : 0;
    const live = scenario === 'live_stream';
    const truths = {
      pCtr: new Float32Array(n),
      pCtcvr: new Float32Array(n),
      expectedValueCents: new Float32Array(n),
    };
    for (let c = 0; c < n; c++) {
      const room = live ? rooms.open[c]! : undefined;
      const shown = room ? rooms.shown(room) : catalogue.shown(first + c);
      const priceCents = room ? rooms.priceCents(room) : catalogue.priceCents[first + c]!;
      const score = trueScore(spec, user, want, shown, priceCents);
      truths.pCtr[c] = score.pCtr;
      truths.pCtcvr[c] = score.pCtcvr;
      truths.expectedValueCents[c] = score.expectedValueCents;
    }
    return truths;
  }

  /** The chance that the logging policy shows each candidate in one draw; float64 [candidates]. */
  viewChances(userId: string, scenario: ScenarioName): Float64Array {
    const { catalogue, rooms, users } = this.#world;
    return viewChances(catalogue, rooms, users.byId(userId), scenario);
  }
}
