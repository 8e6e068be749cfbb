/** The lists that a trained generator can give, ranked and judged under both protocols. */
import type { GeneratorRun, Ranked } from './models/generator-run.ts';
import type { SasrecRun } from './models/sasrec-run.ts';
import { type Candidates, joined, reranked } from './stages/beam-search.ts';
import { type Question, questions, validationQuestions } from './stages/leave-one-out.ts';
import type { SequenceSet } from './stages/parse-sequences.ts';
import {
  PROTOCOLS,
  type Protocol,
  type RankMetrics,
  type Ranks,
  rankInList,
  rankMetrics,
} from './stages/rank-metrics.ts';

export type Judged = Record<Protocol, RankMetrics>;
/** Figures of one list; `weight` by protocol where one was picked on validation. */
export interface ListResult {
  validation: Judged;
  test: Judged;
  weight?: Record<Protocol, number>;
}

export const judge = (ranks: Ranks): Judged => ({
  in: rankMetrics(ranks.in),
  out: rankMetrics(ranks.out),
});

const WEIGHTS = [0, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5] as const;

/** Items of SASRec that join a beam's. */
const ADVISED = 50;

/**
 * beam; with a dense head also the head alone, and the beam's items ordered by both; with a SASRec the beam's items and its best
 * 50 together, ordered by both.
 */
export async function generatorLists(
  run: GeneratorRun,
  set: SequenceSet,
  beam: number,
  sasrec?: SasrecRun,
): Promise<Record<string, ListResult>> {
  const validation = await run.search(validationQuestions(set.sequences), beam);
  const test = await run.search(questions(set.sequences, 'test'), beam);
  const lists: Record<string, ListResult> = {
    beam: { validation: judge(ranksOf(validation)), test: judge(ranksOf(test)) },
  };
  if (validation[0]?.dense) {
    lists.dense = {
      validation: judge(await run.denseRanks(validation)),
      test: judge(await run.denseRanks(test)),
    };
    const order = (ranked: readonly Ranked[]) => (weight: number) =>
      judge(ranksOf(ranked, ({ candidates, dense }) => reranked(candidates, dense!, weight)));
    lists['beam + dense'] = weighted(order(validation), order(test));
  }
  if (sasrec) {
    const order = async (ranked: readonly Ranked[]) => {
      const asked = ranked.map(({ question, candidates }) => ({ question, items: candidates.items }));
      const advice = await sasrec.advise(asked, ADVISED);
      return (weight: number) =>
        judge(ranksOf(ranked, ({ candidates }, i) => joined(candidates, advice[i]!, weight)));
    };
    lists['beam + SASRec'] = weighted(await order(validation), await order(test));
  }
  return lists;
}

/** Picks the weight on validation, for each protocol its own, and reports the test with it. */
function weighted(onValidation: (weight: number) => Judged, onTest: (weight: number) => Judged): ListResult {
  const tried = WEIGHTS.map((weight) => ({ weight, judged: onValidation(weight) }));
  const best = (protocol: Protocol) =>
    tried.reduce((a, b) => (b.judged[protocol]['R@10'] > a.judged[protocol]['R@10'] ? b : a));
  const byProtocol = <V>(value: (protocol: Protocol) => V) =>
    Object.fromEntries(PROTOCOLS.map((p) => [p, value(p)])) as Record<Protocol, V>;
  return {
    weight: byProtocol((p) => best(p).weight),
    validation: byProtocol((p) => best(p).judged[p]),
    test: byProtocol((p) => onTest(best(p).weight)[p]),
  };
}

function ranksOf(
  ranked: readonly Ranked[],
  list: (ranked: Ranked, index: number) => Candidates = ({ candidates }) => candidates,
): Ranks {
  const ranks = ranked.map((one, i) =>
    rankInList(list(one, i).items, one.question.target, one.question.history),
  );
  return { in: Int32Array.from(ranks, (r) => r.in), out: Int32Array.from(ranks, (r) => r.out) };
}

/** Ranks of what was bought most in training: the floor of every table. */
export function popularityRanks(
  set: SequenceSet,
  training: readonly Int32Array[],
  asked: readonly Question[],
): Ranks {
  const counts = new Int32Array(set.numItems);
  for (const sequence of training) for (const item of sequence) counts[item - 1]!++;
  const items = Int32Array.from(counts.keys(), (i) => i + 1).sort(
    (a, b) => counts[b - 1]! - counts[a - 1]! || a - b,
  );
  const ranks = asked.map(({ target, history }) => rankInList(items, target, history));
  return { in: Int32Array.from(ranks, (r) => r.in), out: Int32Array.from(ranks, (r) => r.out) };
}
