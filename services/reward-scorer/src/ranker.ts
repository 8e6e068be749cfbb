/** What the scorer needs of a ranker, wherever it runs. */
import type { RankerScores } from '@onemall/learning';
import type { RankerIdentity } from './stages/score-candidates.ts';

export interface ScorerRanker {
  readonly identity: RankerIdentity;
  /**
   * @param dense float32 [n, NUM_DENSE] @param ids int32 [n, NUM_IDS]
   * @throws RankerRefusedError when these rows will never get an answer
   * @throws RankerReplacedError when another version scores by now: acquire that one and ask it
   */
  score(dense: Float32Array, ids: Int32Array, n: number): Promise<RankerScores>;
}

/** The ranker gave no usable answer to these rows, and asking again will not help. */
export class RankerRefusedError extends Error {
  override name = 'RankerRefusedError';
}

/** A newer version has taken over while the rows were under way. */
export class RankerReplacedError extends Error {
  override name = 'RankerReplacedError';
}

/** A ranker held until released; undefined before the first. */
export interface RankerSource {
  acquire(): { readonly model: ScorerRanker; release(): void } | undefined;
  /** Resolves when the first ranker can score. */
  readonly firstLoaded: Promise<void>;
}
