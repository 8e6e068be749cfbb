/** How popular what lies below each node of a trie is: the weights of a policy that was trained with them (normalizer popular). */
import type { SidTrie } from './build-trie.ts';
import type { NodeWeights } from './search-beam.ts';

/** Of values side by side: the sum of node i's own, values[starts[i] .. starts[i + 1]). */
export function sumsBelow(starts: Int32Array, values: Float64Array): Float64Array {
  const sums = new Float64Array(starts.length - 1);
  for (let node = 0; node < sums.length; node++)
    for (let i = starts[node]!; i < starts[node + 1]!; i++) sums[node]! += values[i]!;
  return sums;
}

/** @param leaves positive counts, one for each SID of the trie. Threads read the weights together with the trie */
export function weighTrie(trie: SidTrie, leaves: Float64Array): NodeWeights {
  const seconds = sumsBelow(trie.starts3, leaves);
  const logs = (counts: Float64Array): Float32Array => {
    const weights = new Float32Array(new SharedArrayBuffer(4 * counts.length));
    for (let i = 0; i < counts.length; i++) weights[i] = Math.log(counts[i]!);
    return weights;
  };
  return [logs(sumsBelow(trie.starts2, seconds)), logs(seconds), logs(leaves)];
}
