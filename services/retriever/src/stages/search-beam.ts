/**
 * Beam search over s1, s2, s3 (OneMall, section 3.2, inference): three batched decode steps; the trie masks which codes may
 * follow. Scores are log-probabilities of the softmax over all codes, or, for a policy that was trained so, of the
 * softmax over the trie's children.
 */
import type { AskedCodes, Decoding } from '@onemall/learning';
import { packSid, type SidTrie, unpackSid } from './build-trie.ts';
import { type Exclusion, NO_EXCLUSION } from './exclude-sids.ts';
import { type Ranked, TopK } from './select-top.ts';

/** SIDs best first, side by side: what threads hand over without an object for each. */
export interface FoundSids {
  size: number;
  packed: Float64Array;
  /** log p of the whole SID, by the normalizer of the search. */
  scores: Float64Array;
  /** float32 [size, 3] log p per level over all codes, whatever the normalizer: what a trainer computes without knowing the trie. */
  tokenLogProbs: Float32Array;
}

export interface BeamCandidate {
  c1: number;
  c2: number;
  c3: number;
  packed: number;
  /** log p per level over all codes. */
  tokenLogProbs: [number, number, number];
  /** log p of the whole SID, by the normalizer of the search; with `codes` their sum. */
  score: number;
}

export function candidateAt({ packed, scores, tokenLogProbs }: FoundSids, i: number): BeamCandidate {
  const [a, b, c] = tokenLogProbs.subarray(3 * i, 3 * i + 3) as unknown as [number, number, number];
  return { ...unpackSid(packed[i]!), packed: packed[i]!, tokenLogProbs: [a, b, c], score: scores[i]! };
}
export const candidatesOf = (found: FoundSids): BeamCandidate[] =>
  Array.from({ length: found.size }, (_, i) => candidateAt(found, i));

/** By level, a log weight for each node of a trie, added to the policy's score of its code. */
export type NodeWeights = readonly [Float32Array, Float32Array, Float32Array];
/**
 * What log-probabilities of a level sum to one over; the one that the policy was trained with. codes: all codes; trie: the
 * children of the node; weights: the same, each with its weight.
 */
export type Normalizer = 'codes' | 'trie' | NodeWeights;

/** Which codes may follow at one level: nodes [starts[p], starts[p + 1]) of parent p, or every code where there is no trie. */
export interface LevelChildren {
  starts: Int32Array | null;
  codes: Int32Array | null;
  gone: ReadonlySet<number>;
  numCodes: number;
}
export type Children = readonly [LevelChildren, LevelChildren, LevelChildren];

export function childrenOfTrie(trie: SidTrie, exclusion: Exclusion): Children {
  const [k1, k2, k3] = trie.numCodes;
  const root = Int32Array.of(0, trie.codes1.length);
  return [
    { starts: root, codes: trie.codes1, gone: exclusion.nodes1, numCodes: k1 },
    { starts: trie.starts2, codes: trie.codes2, gone: exclusion.nodes2, numCodes: k2 },
    { starts: trie.starts3, codes: trie.codes3, gone: exclusion.leaves, numCodes: k3 },
  ];
}

const EVERY_CODE = { starts: null, codes: null, gone: NO_EXCLUSION.leaves };

/**
 * At most `beamWidth` SIDs, best first; equal scores in SID order. With a beam at least as wide as the trie's levels
 * the result is the exact top of all its SIDs.
 */
export function beamSearch(
  trie: SidTrie,
  decoding: Decoding,
  beamWidth: number,
  exclusion: Exclusion = NO_EXCLUSION,
  normalizer: Normalizer = 'codes',
): Promise<FoundSids> {
  return search(childrenOfTrie(trie, exclusion), decoding, beamWidth, normalizer);
}

/** The same search with every code allowed: what the policy would say if no trie held it (legality). */
export function unconstrainedBeam(
  [k1, k2, k3]: SidTrie['numCodes'],
  decoding: Decoding,
  beamWidth: number,
): Promise<FoundSids> {
  const every = (numCodes: number): LevelChildren => ({ ...EVERY_CODE, numCodes });
  return search([every(k1), every(k2), every(k3)], decoding, beamWidth);
}

/** A beam after a level. Codes and log-probabilities of all levels so far, each [size]. */
export interface Beam {
  size: number;
  nodes: Float64Array;
  /** What the next level adds to. */
  scores: Float64Array;
  codes: Int32Array[];
  logProbs: Float32Array[];
  /** Row of each in the level before. */
  parents: Int32Array;
}

export const startOfBeam = (): Beam => ({
  size: 1,
  nodes: Float64Array.of(0),
  scores: Float64Array.of(0),
  codes: [],
  logProbs: [],
  parents: Int32Array.of(0),
});

async function search(
  children: Children,
  decoding: Decoding,
  beamWidth: number,
  normalizer: Normalizer = 'codes',
): Promise<FoundSids> {
  checkWidth(beamWidth);
  let beam = startOfBeam();
  for (const level of [0, 1, 2] as const) {
    const asked = askedOf(children[level], beam);
    const logProbs = await decodeBeam(decoding, level, beam, asked);
    const weights = typeof normalizer === 'string' ? null : normalizer[level];
    const totals = normalizer === 'codes' ? null : logTotals(asked, logProbs, weights);
    const top = new TopK(beamWidth);
    offerChildren(top, children[level].gone, beam, asked, logProbs, totals, weights);
    beam = advanceBeam(beam, top.ranked(), asked, logProbs);
    if (beam.size === 0) break;
  }
  return foundSids(beam, beam.scores);
}

export function checkWidth(beamWidth: number): void {
  if (!Number.isInteger(beamWidth) || beamWidth < 1)
    throw new RangeError(`beamWidth must be a positive integer, got ${beamWidth}`);
}

/** The children of a beam's rows, as codes to ask for. */
export interface AskedChildren extends AskedCodes {
  /** Node of codes[i] in row r: i + shifts[r]; float64 [rows]. */
  shifts: Float64Array;
  /** Place of row r's first answer; int32 [rows]. */
  begins: Int32Array;
}

export function askedOf({ starts, codes, numCodes }: LevelChildren, { size, nodes }: Beam): AskedChildren {
  const asked: AskedChildren = {
    codes: codes ?? Int32Array.from({ length: numCodes }, (_, code) => code),
    from: new Int32Array(size),
    to: new Int32Array(size),
    shifts: new Float64Array(size),
    begins: new Int32Array(size),
  };
  let begin = 0;
  for (let row = 0; row < size; row++) {
    const parent = nodes[row]!;
    asked.from[row] = starts ? starts[parent]! : 0;
    asked.to[row] = starts ? starts[parent + 1]! : numCodes;
    asked.shifts[row] = starts ? 0 : parent * numCodes;
    asked.begins[row] = begin;
    begin += asked.to[row]! - asked.from[row]!;
  }
  return asked;
}

/** log p of the asked codes, row after row. */
export async function decodeBeam(
  decoding: Decoding,
  level: 0 | 1 | 2,
  beam: Beam,
  asked: AskedCodes,
): Promise<Float32Array> {
  if (level > 0) return decoding.next(level as 1 | 2, beam.codes.at(-1)!, beam.parents, asked);
  const all = await decoding.first();
  const [from, to] = [asked.from[0]!, asked.to[0]!];
  return Float32Array.from({ length: to - from }, (_, i) => all[asked.codes[from + i]!]!);
}

/**
 * log of the probability that the children of each row's node have together, what exclusions take away among them: less this,
 * log p(code) is log p(code | one of the children).
 */
function logTotals(
  { from, to, begins, shifts }: AskedChildren,
  logProbs: Float32Array,
  weights: Float32Array | null,
): Float64Array {
  const totals = new Float64Array(from.length);
  for (let row = 0; row < from.length; row++) {
    const begin = begins[row]!;
    const count = to[row]! - from[row]!;
    const node = from[row]! + shifts[row]!;
    let most = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < count; i++)
      most = Math.max(most, logProbs[begin + i]! + (weights ? weights[node + i]! : 0));
    if (most === Number.NEGATIVE_INFINITY) continue;
    let sum = 0;
    for (let i = 0; i < count; i++)
      sum += Math.exp(logProbs[begin + i]! + (weights ? weights[node + i]! : 0) - most);
    totals[row] = most + Math.log(sum);
  }
  return totals;
}

/** The hot loop: one addition and one comparison for each child that cannot enter any more. */
function offerChildren(
  top: TopK,
  gone: ReadonlySet<number>,
  { size, scores }: Beam,
  { from, to, begins, shifts }: AskedChildren,
  logProbs: Float32Array,
  totals: Float64Array | null,
  weights: Float32Array | null,
): void {
  const someGone = gone.size > 0;
  for (let row = 0; row < size; row++) {
    const base = scores[row]! - (totals ? totals[row]! : 0);
    const begin = begins[row]!;
    const count = to[row]! - from[row]!;
    const first = from[row]! + shifts[row]!;
    for (let i = 0; i < count; i++) {
      const score = base + logProbs[begin + i]! + (weights ? weights[first + i]! : 0);
      if (score < top.worst) continue;
      // probability 0 in float32: no candidate, and no finite number to hand on
      if (score === Number.NEGATIVE_INFINITY || (someGone && gone.has(first + i))) continue;
      top.offer(score, first + i, row);
    }
  }
}

/** The beam of those that were kept. */
export function advanceBeam(
  before: Beam,
  { size, scores, nodes, rows }: Ranked,
  { codes, from, begins, shifts }: AskedChildren,
  logProbs: Float32Array,
): Beam {
  const code = new Int32Array(size);
  const logProb = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const row = rows[i]!;
    const at = nodes[i]! - shifts[row]!;
    code[i] = codes[at]!;
    logProb[i] = logProbs[begins[row]! + at - from[row]!]!;
  }
  return {
    size,
    nodes,
    scores,
    codes: [...before.codes.map((c) => rows.map((row) => c[row]!)), code],
    logProbs: [...before.logProbs.map((p) => Float32Array.from(rows, (row) => p[row]!)), logProb],
    parents: rows,
  };
}

/** @param scores log p of each SID of a whole beam */
export function foundSids({ size, codes, logProbs }: Beam, scores: Float64Array): FoundSids {
  const packed = new Float64Array(size);
  const tokenLogProbs = new Float32Array(3 * size);
  for (let i = 0; i < size; i++) {
    packed[i] = packSid({ c1: codes[0]![i]!, c2: codes[1]![i]!, c3: codes[2]![i]! });
    for (let level = 0; level < 3; level++) tokenLogProbs[3 * i + level] = logProbs[level]![i]!;
  }
  return { size, packed, scores, tokenLogProbs };
}
