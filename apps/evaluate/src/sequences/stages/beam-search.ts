/** Beam search over the SIDs that exist, one level at a time; the model's scores come from outside. */
import type { SidTrie } from './sid-trie.ts';

/** Partial SIDs of one history, best first. */
export interface Beam {
  /** Node of the trie of each, at the level reached. */
  nodes: Int32Array;
  /** Sum of the log-probabilities so far. */
  logProbs: Float64Array;
  /** Codes of each by level. */
  codes: Int32Array[];
  /** Which partial SID of the beam before each one continues. */
  from: Int32Array;
}

export const startBeam = (): Beam => ({
  nodes: Int32Array.of(0),
  logProbs: Float64Array.of(0),
  codes: [],
  from: Int32Array.of(0),
});

/**
 * @param scores of the next code of partial SID b at begin + b V
 * @param normalized false: scores are logits, and the softmax runs over the children that exist
 * @returns at most `width` partial SIDs one code longer; of equal ones the one with the lower codes comes first
 */
export function extendBeam(
  beam: Beam,
  trie: SidTrie,
  {
    scores,
    begin,
    normalized,
    width,
  }: { scores: Float32Array; begin: number; normalized: boolean; width: number },
): Beam {
  const level = beam.codes.length;
  const { begin: first, codes, nodes } = trie.levels[level]!;
  const count = trie.numCodes[level]!;
  const found: { from: number; child: number; logProb: number }[] = [];
  beam.nodes.forEach((node, b) => {
    const at = begin + b * count;
    const norm = normalized ? 0 : logSumExp(scores, at, codes, first[node]!, first[node + 1]!);
    for (let child = first[node]!; child < first[node + 1]!; child++)
      found.push({ from: b, child, logProb: beam.logProbs[b]! + scores[at + codes[child]!]! - norm });
  });
  found.sort((a, b) => b.logProb - a.logProb || a.child - b.child);
  const kept = found.slice(0, width);
  return {
    nodes: Int32Array.from(kept, (k) => nodes[k.child]!),
    logProbs: Float64Array.from(kept, (k) => k.logProb),
    codes: [
      ...beam.codes.map((level) => Int32Array.from(kept, (k) => level[k.from]!)),
      Int32Array.from(kept, (k) => codes[k.child]!),
    ],
    from: Int32Array.from(kept, (k) => k.from),
  };
}

function logSumExp(scores: Float32Array, at: number, codes: Int32Array, first: number, end: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let c = first; c < end; c++) max = Math.max(max, scores[at + codes[c]!]!);
  let sum = 0;
  for (let c = first; c < end; c++) sum += Math.exp(scores[at + codes[c]!]! - max);
  return max + Math.log(sum);
}

/** Items of a finished beam with their scores, best first. */
export interface Candidates {
  items: Int32Array;
  scores: Float64Array;
}

/**
 * Items of the SIDs, log p(item) = log p(SID) + log p(item | SID), the latter by how often the items of a SID were met.
 * @param logShare of item i + 1 among the items of its SID
 */
export function itemsOf(beam: Beam, trie: SidTrie, logShare: Float64Array): Candidates {
  const found: { item: number; score: number }[] = [];
  beam.nodes.forEach((leaf, b) => {
    for (const item of trie.items[leaf]!)
      found.push({ item, score: beam.logProbs[b]! + logShare[item - 1]! });
  });
  found.sort((a, b) => b.score - a.score || a.item - b.item);
  return {
    items: Int32Array.from(found, (f) => f.item),
    scores: Float64Array.from(found, (f) => f.score),
  };
}

/** log of each item's share of the interactions of its SID. @param counts of item i + 1, all above 0 */
export function logShares(trie: SidTrie, counts: Float64Array): Float64Array {
  const shares = new Float64Array(counts.length);
  for (const items of trie.items) {
    const total = items.reduce((sum, item) => sum + counts[item - 1]!, 0);
    for (const item of items) shares[item - 1] = Math.log(counts[item - 1]! / total);
  }
  return shares;
}

/** The same items, ordered by score + weight x other. */
export function reranked({ items, scores }: Candidates, other: Float64Array, weight: number): Candidates {
  const sums = scores.map((score, i) => score + weight * other[i]!);
  const order = [...items.keys()].sort((a, b) => sums[b]! - sums[a]! || items[a]! - items[b]!);
  return {
    items: Int32Array.from(order, (i) => items[i]!),
    scores: Float64Array.from(order, (i) => sums[i]!),
  };
}

/** What another model says about one question. */
export interface Advice {
  /** Its best items, best first. */
  best: readonly number[];
  /** log p of those and of the candidates. */
  logProbs: ReadonlyMap<number, number>;
}

/** Below the worst candidate: where an item of the advice begins that the beam did not find. */
const NOT_IN_BEAM = 0.5;

/** Candidates and advised items together, by score + weight x log p of the advice. */
export function joined({ items, scores }: Candidates, advice: Advice, weight: number): Candidates {
  const own = new Map(Array.from(items, (item, i) => [item, scores[i]!]));
  const floor = scores.reduce((a, b) => Math.min(a, b), 0) - NOT_IN_BEAM;
  const union = Int32Array.from(new Set([...items, ...advice.best]));
  const logProbs = Float64Array.from(union, (item) => advice.logProbs.get(item)!);
  const candidates = { items: union, scores: Float64Array.from(union, (item) => own.get(item) ?? floor) };
  return reranked(candidates, logProbs, weight);
}
