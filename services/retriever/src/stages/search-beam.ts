/**
 * Beam search over s1, s2, s3 (OneMall, section 3.2, inference): three batched decode steps; the trie only masks which
 * codes may follow, so log-probabilities stay those of the softmax over all codes (design note model.md, Normalizer).
 */
import { packSid, type SidTrie } from './build-trie.ts';
import { type Exclusion, NO_EXCLUSION } from './exclude-sids.ts';
import { TopK } from './select-top.ts';

/**
 * log p(code | prefix, context) for n prefixes of one level.
 * @param prefixes int32 [n, level]
 * @returns float32 [n, K_level], each row a log-softmax over all codes
 */
export type DecodeStep = (level: 0 | 1 | 2, prefixes: Int32Array, n: number) => Promise<Float32Array>;

export interface BeamCandidate {
  c1: number;
  c2: number;
  c3: number;
  packed: number;
  /** log p per level. */
  tokenLogProbs: [number, number, number];
  /** Their sum. */
  score: number;
}

/** What may follow: the trie's children, or every code where legality is measured. */
interface Children {
  /** Children of node `parent` of the level above; the root is node 0. */
  range(level: number, parent: number): readonly [from: number, to: number];
  code(level: number, node: number): number;
  excluded(level: number, node: number): boolean;
}

/**
 * At most `beamWidth` SIDs, best first; equal scores in SID order. With a beam at least as wide as the trie's levels
 * the result is the exact top of all its SIDs.
 */
export function beamSearch(
  trie: SidTrie,
  decode: DecodeStep,
  beamWidth: number,
  exclusion: Exclusion = NO_EXCLUSION,
): Promise<BeamCandidate[]> {
  const codes = [trie.codes1, trie.codes2, trie.codes3] as const;
  const gone = [exclusion.nodes1, exclusion.nodes2, exclusion.leaves] as const;
  return search(
    {
      range: (level, parent) =>
        level === 0
          ? [0, trie.codes1.length]
          : level === 1
            ? [trie.starts2[parent]!, trie.starts2[parent + 1]!]
            : [trie.starts3[parent]!, trie.starts3[parent + 1]!],
      code: (level, node) => codes[level]![node]!,
      excluded: (level, node) => gone[level]!.has(node),
    },
    trie.numCodes,
    decode,
    beamWidth,
  );
}

/** The same search with every code allowed: what the policy would say if no trie held it (legality). */
export function unconstrainedBeam(
  numCodes: SidTrie['numCodes'],
  decode: DecodeStep,
  beamWidth: number,
): Promise<BeamCandidate[]> {
  return search(
    {
      range: (level, parent) => [parent * numCodes[level]!, (parent + 1) * numCodes[level]!],
      code: (level, node) => node % numCodes[level]!,
      excluded: () => false,
    },
    numCodes,
    decode,
    beamWidth,
  );
}

async function search(
  children: Children,
  numCodes: SidTrie['numCodes'],
  decode: DecodeStep,
  beamWidth: number,
): Promise<BeamCandidate[]> {
  if (!Number.isInteger(beamWidth) || beamWidth < 1)
    throw new RangeError(`beamWidth must be a positive integer, got ${beamWidth}`);
  let beams: { node: number; codes: number[]; logProbs: number[]; score: number }[] = [
    { node: 0, codes: [], logProbs: [], score: 0 },
  ];
  for (const level of [0, 1, 2] as const) {
    const prefixes = Int32Array.from(beams.flatMap((b) => b.codes));
    const logProbs = await decode(level, prefixes, beams.length);
    const width = numCodes[level];
    const best = new TopK(beamWidth);
    for (const [row, beam] of beams.entries()) {
      const [from, to] = children.range(level, beam.node);
      for (let node = from; node < to; node++) {
        if (children.excluded(level, node)) continue;
        const score = beam.score + logProbs[row * width + children.code(level, node)]!;
        // probability 0 in float32: no candidate, and no finite number to hand on
        if (score !== Number.NEGATIVE_INFINITY) best.offer(score, node, row);
      }
    }
    const parents = beams;
    beams = best.sorted().map(({ score, node, row }) => {
      const code = children.code(level, node);
      const parent = parents[row]!;
      return {
        node,
        codes: [...parent.codes, code],
        logProbs: [...parent.logProbs, logProbs[row * width + code]!],
        score,
      };
    });
    if (beams.length === 0) return [];
  }
  return beams.map(({ codes, logProbs, score }) => {
    const [c1, c2, c3] = codes as [number, number, number];
    return {
      c1,
      c2,
      c3,
      packed: packSid({ c1, c2, c3 }),
      tokenLogProbs: logProbs as [number, number, number],
      score,
    };
  });
}
