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
  const kept: RankedCandidate[] = [];
  const best = new Map<string, RankedCandidate>();
  const replaced = new Set<RankedCandidate>();
  for (const [rank, { c1, c2, c3, tokenLogProbs, itemId }] of candidates.entries()) {
    const ranked = { c1, c2, c3, tokenLogProbs, itemId, rank };
    if (itemId !== null) {
      const known = best.get(itemId);
      if (known && logProb(ranked) <= logProb(known)) continue;
      if (known) replaced.add(known);
      best.set(itemId, ranked);
    }
    kept.push(ranked);
  }
  return replaced.size === 0 ? kept : kept.filter((candidate) => !replaced.has(candidate));
}
