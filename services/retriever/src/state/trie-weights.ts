/** Weights of tries for policies with the normalizer popular, kept for as long as a trie is used and made anew as counts go on. */
import type { SidTrie } from '../stages/build-trie.ts';
import type { NodeWeights } from '../stages/search-beam.ts';
import { weighTrie } from '../stages/weigh-trie.ts';

/** Training takes weights of up to two minutes ago: these are younger. */
const KEEP_MS = 5_000;

export class TrieWeights {
  readonly #known = new WeakMap<SidTrie, { weights: NodeWeights; builtMs: number }>();

  /**
   * Every item counts once more than it was seen.
   * @param itemsOf the items of a packed SID
   * @param seen how often an item was seen, as of now
   */
  of(
    trie: SidTrie,
    itemsOf: (packed: number) => Iterable<string>,
    seen: (itemId: string) => number,
    nowMs: number,
  ): NodeWeights {
    const known = this.#known.get(trie);
    if (known && nowMs - known.builtMs < KEEP_MS) return known.weights;
    const leaves = Float64Array.from(trie.packed, (packed) => {
      let sum = 0;
      for (const itemId of itemsOf(packed)) sum += 1 + seen(itemId);
      // its last item left after the trie was built
      return Math.max(1, sum);
    });
    const weights = weighTrie(trie, leaves);
    this.#known.set(trie, { weights, builtMs: nowMs });
    return weights;
  }
}
