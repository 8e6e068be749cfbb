/**
 * SIDs drawn without replacement: stochastic beam search with Gumbel top-k (Kool, van Hoof and Welling 2019, algorithm 1),
 * the alternative to the beam for rollouts, for a beam is a list of the best and no sample of the policy.
 *
 * The distribution drawn from is the policy restricted to the trie: at each node the probabilities of the children that exist
 * are scaled to sum to 1. The log-probabilities handed on are the policy's own, over all codes, as in the beam.
 */
import type { Decoding } from '@onemall/learning';
import type { SidTrie } from './build-trie.ts';
import { type Exclusion, NO_EXCLUSION } from './exclude-sids.ts';
import {
  type AskedChildren,
  advanceBeam,
  askedOf,
  type Beam,
  checkWidth,
  childrenOfTrie,
  decodeBeam,
  type FoundSids,
  foundSids,
  startOfBeam,
} from './search-beam.ts';
import { TopK } from './select-top.ts';

/** Uniform numbers in [0, 1), such as service-kit's SeededRandom. */
export interface UniformSource {
  next(): number;
}

/**
 * At most `count` SIDs in the order in which they were drawn: the first is a plain draw, the second a draw from what remains,
 * and so on (Plackett and Luce).
 */
export async function sampleSids(
  trie: SidTrie,
  decoding: Decoding,
  count: number,
  random: UniformSource,
  exclusion: Exclusion = NO_EXCLUSION,
): Promise<FoundSids> {
  checkWidth(count);
  const children = childrenOfTrie(trie, exclusion);
  // beam.scores holds G, the perturbed log-probability; phi is log q of each prefix
  let beam = startOfBeam();
  let phi: Float64Array = Float64Array.of(0);
  for (const level of [0, 1, 2] as const) {
    const asked = askedOf(children[level], beam);
    const answer = await decodeBeam(decoding, level, beam, asked);
    const top = new TopK(count);
    const logSums = new Float64Array(beam.size);
    for (let row = 0; row < beam.size; row++)
      logSums[row] = perturbChildren(top, children[level].gone, asked, beam, phi, answer, row, random);
    const before = phi;
    beam = advanceBeam(beam, top.ranked(), asked, answer);
    const logProb = beam.logProbs.at(-1)!;
    phi = Float64Array.from(beam.parents, (row, i) => before[row]! + logProb[i]! - logSums[row]!);
    if (beam.size === 0) break;
  }
  const scores = new Float64Array(beam.size);
  for (let i = 0; i < beam.size; i++) scores[i] = beam.logProbs.reduce((sum, p) => sum + p[i]!, 0);
  return foundSids(beam, scores);
}

/** Offers the children of one row with Gumbels whose greatest is the row's own G. @returns log of their probabilities' sum */
function perturbChildren(
  top: TopK,
  gone: ReadonlySet<number>,
  { from, to, begins }: AskedChildren,
  beam: Beam,
  phi: Float64Array,
  answer: Float32Array,
  row: number,
  random: UniformSource,
): number {
  const first = from[row]!;
  const nodes: number[] = [];
  const logProbs: number[] = [];
  for (let node = first; node < to[row]!; node++) {
    const logProb = answer[begins[row]! + node - first]!;
    if (logProb === Number.NEGATIVE_INFINITY || gone.has(node)) continue;
    nodes.push(node);
    logProbs.push(logProb);
  }
  const most = logProbs.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const logSum = most + Math.log(logProbs.reduce((sum, p) => sum + Math.exp(p - most), 0));
  const perturbed = logProbs.map((p) => phi[row]! + p - logSum + gumbel(random));
  const greatest = perturbed.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const limit = beam.scores[row]!;
  for (const [i, g] of perturbed.entries()) {
    // the numerically stable form of appendix B.3 of the paper
    const v = limit - g + (g === greatest ? Number.NEGATIVE_INFINITY : Math.log(-Math.expm1(g - greatest)));
    top.offer(limit - Math.max(0, v) - Math.log1p(Math.exp(-Math.abs(v))), nodes[i]!, row);
  }
  return logSum;
}

/** Standard Gumbel. */
const gumbel = (random: UniformSource): number => -Math.log(-Math.log(random.next() || SMALLEST));
/** In place of 0, which would give minus infinity; half of SeededRandom's smallest step. */
const SMALLEST = 2 ** -33;
