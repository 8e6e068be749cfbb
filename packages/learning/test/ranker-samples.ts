/** Exposures that a ranker can learn from. */
import { NUM_DENSE, NUM_IDS } from '@onemall/features';
import type { RankerSample } from '../src/index.ts';
import type { Random } from './synthetic.ts';

export const SCENARIOS = ['product_card', 'short_video'];

/** Clicks follow the first dense feature, buys the second, values the first id. */
function sample(random: Random): RankerSample {
  const dense = Float32Array.from({ length: NUM_DENSE }, () => 2 * random.next() - 1);
  const ids = Int32Array.from({ length: NUM_IDS }, () => random.int(50));
  const clicked = random.next() < 1 / (1 + Math.exp(-4 * dense[0]!));
  const bought = random.next() < 0.4 / (1 + Math.exp(-4 * dense[1]!));
  return {
    scenario: SCENARIOS[random.int(2)]!,
    dense,
    ids,
    clicked,
    bought,
    buyValueCents: bought ? Math.round(Math.exp(6 + (ids[0]! % 2) + 0.3 * random.next())) : 0,
  };
}
export const randomRankerSamples = (random: Random, n: number): RankerSample[] =>
  Array.from({ length: n }, () => sample(random));
