/**
 * The SIDs that exist now as a prefix tree in compressed sparse rows: children of one node lie side by side, ascending.
 * A trie is immutable; one request sees one trie from its first level to its last.
 */
import type { Sid } from '@onemall/contracts';

/** Codes per level of one scenario's codebook. */
export type NumCodes = readonly [number, number, number];

export interface SidTrie {
  readonly numCodes: NumCodes;
  /** Codes of the first level, ascending: int32 [n1]. */
  readonly codes1: Int32Array;
  /** Children of node i of level 1 are codes2[starts2[i] .. starts2[i + 1]): int32 [n1 + 1]. */
  readonly starts2: Int32Array;
  readonly codes2: Int32Array;
  /** Children of node j of level 2 are codes3[starts3[j] .. starts3[j + 1]): int32 [n2 + 1]. */
  readonly starts3: Int32Array;
  /** One entry per SID: the leaves. */
  readonly codes3: Int32Array;
  /** The SIDs themselves, packed, ascending; leaf i is packed[i]. */
  readonly packed: Float64Array;
}

/** Room per level of a packed SID: 2^17 codes, so that three levels stay below 2^53. */
const BASE = 131_072;

/** One number per SID, ordered as (c1, c2, c3), whatever the size of the codebook. */
export const packSid = ({ c1, c2, c3 }: Pick<Sid, 'c1' | 'c2' | 'c3'>): number =>
  (c1 * BASE + c2) * BASE + c3;

export function unpackSid(packed: number): { c1: number; c2: number; c3: number } {
  const pair = Math.floor(packed / BASE);
  const c1 = Math.floor(pair / BASE);
  return { c1, c2: pair - c1 * BASE, c3: packed - pair * BASE };
}

/** True where every code lies inside the codebook: the policy has no logit for others. */
export const fitsCodebook = (numCodes: NumCodes, { c1, c2, c3 }: Pick<Sid, 'c1' | 'c2' | 'c3'>): boolean =>
  inRange(c1, numCodes[0]) && inRange(c2, numCodes[1]) && inRange(c3, numCodes[2]);
const inRange = (code: number, numCodes: number): boolean =>
  Number.isInteger(code) && code >= 0 && code < numCodes;
/** Codes that `packSid` can hold. */
export const LARGEST_CODEBOOK: NumCodes = [BASE, BASE, BASE];

/** Threads read one trie together: its arrays lie in shared memory. */
const sharedInts = (length: number): Int32Array => new Int32Array(new SharedArrayBuffer(4 * length));
const sharedFloats = (length: number): Float64Array => new Float64Array(new SharedArrayBuffer(8 * length));

/** @param packed ascending and distinct, see `mergeSids` */
export function buildTrie(numCodes: NumCodes, packed: Float64Array): SidTrie {
  const leaves = packed.length;
  let n1 = 0;
  let n2 = 0;
  let last1 = -1;
  let lastPair = -1;
  for (let leaf = 0; leaf < leaves; leaf++) {
    const pair = Math.floor(packed[leaf]! / BASE);
    if (pair === lastPair) continue;
    n2++;
    lastPair = pair;
    const c1 = Math.floor(pair / BASE);
    if (c1 !== last1) n1++;
    last1 = c1;
  }
  const trie = {
    numCodes,
    codes1: sharedInts(n1),
    starts2: sharedInts(n1 + 1),
    codes2: sharedInts(n2),
    starts3: sharedInts(n2 + 1),
    codes3: sharedInts(leaves),
    packed: packed.buffer instanceof SharedArrayBuffer ? packed : sharedFloats(leaves),
  };
  if (trie.packed !== packed) trie.packed.set(packed);
  const { codes1, starts2, codes2, starts3, codes3 } = trie;
  n1 = 0;
  n2 = 0;
  last1 = -1;
  lastPair = -1;
  for (let leaf = 0; leaf < leaves; leaf++) {
    const pair = Math.floor(packed[leaf]! / BASE);
    if (pair !== lastPair) {
      const c1 = Math.floor(pair / BASE);
      if (c1 !== last1) {
        starts2[n1] = n2;
        codes1[n1++] = c1;
        last1 = c1;
      }
      starts3[n2] = leaf;
      codes2[n2++] = pair - c1 * BASE;
      lastPair = pair;
    }
    codes3[leaf] = packed[leaf]! - pair * BASE;
  }
  starts2[n1] = n2;
  starts3[n2] = leaves;
  return trie;
}

export const emptyTrie = (numCodes: NumCodes): SidTrie => buildTrie(numCodes, new Float64Array(0));

/**
 * The packed SIDs after some entered and some left: one pass over the old ones, no sort of them.
 * @param old ascending and distinct
 */
export function mergeSids(
  old: Float64Array,
  entered: ReadonlySet<number>,
  left: ReadonlySet<number>,
): Float64Array {
  const fresh = Float64Array.from(entered).sort();
  const merged = sharedFloats(old.length + fresh.length);
  let size = 0;
  let i = 0;
  let j = 0;
  while (i < old.length || j < fresh.length) {
    if (j >= fresh.length || (i < old.length && old[i]! < fresh[j]!)) {
      const sid = old[i++]!;
      if (left.size === 0 || !left.has(sid)) merged[size++] = sid;
    } else {
      if (i < old.length && old[i] === fresh[j]) i++;
      merged[size++] = fresh[j++]!;
    }
  }
  return merged.subarray(0, size);
}

/** The packed SIDs that fit a codebook; the same array where all do. */
export function fittingSids(numCodes: NumCodes, packed: Float64Array): Float64Array {
  const fits = (sid: number): boolean => {
    const pair = Math.floor(sid / BASE);
    const c1 = Math.floor(pair / BASE);
    return sid - pair * BASE < numCodes[2] && pair - c1 * BASE < numCodes[1] && c1 < numCodes[0];
  };
  return packed.every(fits) ? packed : packed.filter(fits);
}

/** The part of a trie that holds these SIDs; those that it does not hold are ignored. */
export function partOfTrie(trie: SidTrie, sids: Iterable<number>): SidTrie {
  const wanted = Float64Array.from(sids).sort();
  let size = 0;
  for (const [i, sid] of wanted.entries())
    if ((i === 0 || sid !== wanted[i - 1]) && leafOf(trie, sid) >= 0) wanted[size++] = sid;
  return buildTrie(trie.numCodes, wanted.subarray(0, size));
}

/** Index of the leaf of a packed SID, or -1. */
export function leafOf(trie: SidTrie, packed: number): number {
  let low = 0;
  let high = trie.packed.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const at = trie.packed[middle]!;
    if (at === packed) return middle;
    if (at < packed) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
