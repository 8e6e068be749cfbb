/**
 * Beam recall: is the SID that the user took among the beam's? The obvious form of the beam search that the retriever
 * runs fast; it is written out here because a gate that shared code with what it guards would share its errors.
 */
import type { SidCodes } from '@onemall/features';
import type { PolicyRuntime, RequestTensors } from '@onemall/learning';

/** SIDs of one scenario as a prefix tree: c1 -> c2 -> c3. */
export type SidTree = ReadonlyMap<number, ReadonlyMap<number, ReadonlySet<number>>>;

/** Trees by scenario. */
export function sidTrees(sids: Iterable<SidCodes>): Map<string, SidTree> {
  const trees = new Map<string, Map<number, Map<number, Set<number>>>>();
  for (const { scenario, c1, c2, c3 } of sids) {
    const tree = entry(trees, scenario, () => new Map());
    const below = entry(tree, c1, () => new Map());
    entry(below, c2, () => new Set<number>()).add(c3);
  }
  return trees;
}

export const isIn = (
  tree: SidTree | undefined,
  { c1, c2, c3 }: Pick<SidCodes, 'c1' | 'c2' | 'c3'>,
): boolean => tree?.get(c1)?.get(c2)?.has(c3) ?? false;

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}

interface Beam {
  codes: readonly number[];
  score: number;
}

/** @returns true when the target is among the `width` best SIDs of the tree; equal scores in the order of their codes */
export async function beamFinds(
  policy: Pick<PolicyRuntime, 'encode' | 'decode' | 'manifest'>,
  request: RequestTensors,
  target: SidCodes,
  tree: SidTree,
  width: number,
): Promise<boolean> {
  const numCodes = policy.manifest.numCodes[request.scenario]!;
  const context = await policy.encode(request);
  let beams: Beam[] = [{ codes: [], score: 0 }];
  for (const level of [0, 1, 2] as const) {
    const prefixes = Int32Array.from(beams.flatMap((b) => b.codes));
    const logProbs = await policy.decode(context, level, prefixes, beams.length);
    const next = beams.flatMap(({ codes, score }, row) =>
      [...childrenOf(tree, codes)].map((code) => ({
        codes: [...codes, code],
        score: score + logProbs[row * numCodes[level] + code]!,
      })),
    );
    beams = next.sort((a, b) => b.score - a.score || compareCodes(a.codes, b.codes)).slice(0, width);
  }
  return beams.some(({ codes: [c1, c2, c3] }) => c1 === target.c1 && c2 === target.c2 && c3 === target.c3);
}

/** Share of the `width` best SIDs of all codes, without a tree to keep to, that the tree holds; 0 where there is none. */
export async function legalShare(
  policy: Pick<PolicyRuntime, 'encode' | 'decode' | 'manifest'>,
  request: RequestTensors,
  tree: SidTree | undefined,
  width: number,
): Promise<number> {
  const numCodes = policy.manifest.numCodes[request.scenario]!;
  const context = await policy.encode(request);
  let beams: Beam[] = [{ codes: [], score: 0 }];
  for (const level of [0, 1, 2] as const) {
    const prefixes = Int32Array.from(beams.flatMap((b) => b.codes));
    const logProbs = await policy.decode(context, level, prefixes, beams.length);
    const count = numCodes[level];
    const scores = Float64Array.from(logProbs, (p, i) => beams[Math.floor(i / count)]!.score + p);
    const order = Int32Array.from(scores, (_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);
    const parents = beams;
    beams = Array.from(order.subarray(0, width), (at) => ({
      codes: [...parents[Math.floor(at / count)]!.codes, at % count],
      score: scores[at]!,
    }));
  }
  const legal = beams.filter(({ codes: [c1, c2, c3] }) => isIn(tree, { c1: c1!, c2: c2!, c3: c3! }));
  return legal.length / beams.length;
}

function childrenOf(tree: SidTree, [c1, c2]: readonly number[]): Iterable<number> {
  if (c1 === undefined) return tree.keys();
  if (c2 === undefined) return tree.get(c1)!.keys();
  return tree.get(c1)!.get(c2)!;
}

function compareCodes(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((code, i) => code !== b[i]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}
