/** Who says what the items of a list are worth: the ground truth, or a ranker. */
import { NUM_DENSE, NUM_IDS, rankerFeatures } from '@onemall/features';
import type { RankerRuntime } from '@onemall/learning';
import type { WorldLog } from '../log/world-log.ts';
import { featuresAsOf } from '../samples/training-samples.ts';

/** What a judge says of the items of one list, in its order. */
export interface Judgement {
  pCtr: ArrayLike<number>;
  pCtcvr: ArrayLike<number>;
  /** pCtcvr x expected paid value given the buy, minor units. */
  valueCents: ArrayLike<number>;
}

/** What a ranker says of a list. @param items item numbers, all there as of the request */
export async function rankerJudgement(
  log: WorldLog,
  ranker: RankerRuntime,
  request: number,
  items: Int32Array,
  historyLength: number,
): Promise<Judgement> {
  const requestTimeMs = log.requests.timeMs.at(request);
  const history = log.historyBefore(request, historyLength);
  const context = { scenario: log.scenario(request), requestTimeMs, history };
  const dense = new Float32Array(items.length * NUM_DENSE);
  const ids = new Int32Array(items.length * NUM_IDS);
  items.forEach((item, i) => {
    const features = rankerFeatures(context, log.itemId(item), featuresAsOf(log, item, requestTimeMs));
    dense.set(features.dense, i * NUM_DENSE);
    ids.set(features.ids, i * NUM_IDS);
  });
  const { pCtr, pCtcvr, buyValueCents } = await ranker.score(dense, ids, items.length);
  return { pCtr, pCtcvr, valueCents: pCtcvr.map((p, i) => p * buyValueCents[i]!) };
}

/** What is true of a list. Ask while the world is as of the request. */
export function trueJudgement(log: WorldLog, request: number, items: Int32Array): Judgement {
  const userId = `u${log.requests.user.at(request)}`;
  const ids = Array.from(items, (item) => log.itemId(item));
  const scores = log.world.trueScores(userId, ids, log.newestWant).map((score, i) => {
    if (!score) throw new Error(`${ids[i]} is not there at request ${request}: it cannot be judged`);
    return score;
  });
  return {
    pCtr: scores.map((s) => s.pCtr),
    pCtcvr: scores.map((s) => s.pCtcvr),
    valueCents: scores.map((s) => s.expectedValueCents),
  };
}
