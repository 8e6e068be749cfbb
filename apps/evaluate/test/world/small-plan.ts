/** A small world on the code of the large one. */
import { readWorld } from '@onemall/simulator/world-file';
import { type EvaluationPlan, readEvaluationPlan } from '../../src/world/log/plan.ts';

export function smallPlan(changes: Partial<EvaluationPlan> = {}): EvaluationPlan {
  const spec = readWorld('evaluation');
  return {
    ...readEvaluationPlan(),
    trainExposures: 8_000,
    testExposures: 2_000,
    heldBackFraction: 0.05,
    scenarios: {
      product_card: { clickWindowMs: 10_000, buyWindowMs: 20_000 },
      short_video: { clickWindowMs: 8_000, buyWindowMs: 30_000 },
      live_stream: { clickWindowMs: 10_000, buyWindowMs: 20_000 },
    },
    spec: { ...spec, users: 40, productCards: 600, shortVideos: 400, liveRooms: 30, topics: 12, sellers: 40 },
    ...changes,
  };
}
