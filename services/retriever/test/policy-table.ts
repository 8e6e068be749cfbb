/** A policy given by a table: log-probabilities that depend on level and prefix, drawn from a seed. Brute force is easy on it. */
import { SeededRandom } from '@onemall/service-kit';
import type { NumCodes } from '../src/stages/build-trie.ts';
import type { DecodeStep } from '../src/stages/search-beam.ts';

export class PolicyTable {
  readonly numCodes: NumCodes;
  readonly #seed: number;
  readonly #rows = new Map<string, Float32Array>();
  constructor(numCodes: NumCodes, seed: number) {
    this.numCodes = numCodes;
    this.#seed = seed;
  }

  /** log-softmax over the codes that may follow a prefix. */
  row(prefix: readonly number[]): Float32Array {
    const key = prefix.join(',');
    let row = this.#rows.get(key);
    if (!row) {
      const random = new SeededRandom(prefix.reduce((h, c) => h * 31 + c + 1, this.#seed));
      const logits = Array.from({ length: this.numCodes[prefix.length]! }, () => 2 * random.normal());
      const logSum = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
      row = Float32Array.from(logits, (x) => x - logSum);
      this.#rows.set(key, row);
    }
    return row;
  }

  readonly decode: DecodeStep = async (level, prefixes, n) => {
    const width = this.numCodes[level]!;
    const out = new Float32Array(n * width);
    for (let i = 0; i < n; i++)
      out.set(this.row([...prefixes.subarray(i * level, (i + 1) * level)]), i * width);
    return out;
  };

  /** log p(sid), level by level. */
  tokenLogProbs({ c1, c2, c3 }: { c1: number; c2: number; c3: number }): [number, number, number] {
    return [this.row([])[c1]!, this.row([c1])[c2]!, this.row([c1, c2])[c3]!];
  }
}
