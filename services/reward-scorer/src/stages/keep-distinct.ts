import type { Candidate } from '@onemall/contracts';

/** A candidate with its place in the beam. */
export interface RankedCandidate extends Candidate {
  rank: number;
}

export const logProb = ({ tokenLogProbs }: Pick<Candidate, 'tokenLogProbs'>): number =>
  tokenLogProbs.reduce((sum, x) => sum + x, 0);

/**
 * Of several SIDs that serve one item, the one with the highest log-probability stays; SIDs without an item are all
 * different. Beam order is kept, and so is the rank in it.
 */
export function keepDistinct(candidates: readonly Candidate[]): RankedCandidate[] {
  const best = new Map<string, RankedCandidate>();
  const withoutItem: RankedCandidate[] = [];
  for (const [rank, candidate] of candidates.entries()) {
    const { c1, c2, c3, tokenLogProbs, itemId } = candidate;
    const ranked = { c1, c2, c3, tokenLogProbs, itemId, rank };
    if (candidate.itemId === null) {
      withoutItem.push(ranked);
      continue;
    }
    const known = best.get(candidate.itemId);
    if (!known || logProb(candidate) > logProb(known)) best.set(candidate.itemId, ranked);
  }
  return [...best.values(), ...withoutItem].sort((a, b) => a.rank - b.rank);
}
