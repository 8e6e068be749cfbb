/**
 * Takes a few SIDs out of a trie for one request (items already bought) without rebuilding it: the leaves, and every
 * inner node that has no leaf left, so that no place in the beam goes to a dead end.
 */
import { leafOf, type SidTrie } from './build-trie.ts';

export interface Exclusion {
  /** Node indices per level. */
  readonly nodes1: ReadonlySet<number>;
  readonly nodes2: ReadonlySet<number>;
  readonly leaves: ReadonlySet<number>;
}

const NONE: ReadonlySet<number> = new Set();
export const NO_EXCLUSION: Exclusion = { nodes1: NONE, nodes2: NONE, leaves: NONE };

/** SIDs that the trie does not hold are ignored. */
export function excludeSids(trie: SidTrie, packed: Iterable<number>): Exclusion {
  const leaves = new Set<number>();
  for (const sid of packed) {
    const leaf = leafOf(trie, sid);
    if (leaf >= 0) leaves.add(leaf);
  }
  if (leaves.size === 0) return NO_EXCLUSION;
  const nodes2 = emptiedParents(trie.starts3, leaves);
  return { nodes1: emptiedParents(trie.starts2, nodes2), nodes2, leaves };
}

/** Parents all of whose children are gone. @param starts int32 [parents + 1] */
function emptiedParents(starts: Int32Array, gone: ReadonlySet<number>): Set<number> {
  const goneOf = new Map<number, number>();
  for (const child of gone) {
    const parent = parentOf(starts, child);
    goneOf.set(parent, (goneOf.get(parent) ?? 0) + 1);
  }
  const emptied = new Set<number>();
  for (const [parent, count] of goneOf)
    if (count === starts[parent + 1]! - starts[parent]!) emptied.add(parent);
  return emptied;
}

/** The last parent whose children begin at or before this one. */
function parentOf(starts: Int32Array, child: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (starts[middle]! <= child) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
