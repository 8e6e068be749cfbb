/** A policy given by a table: log-probabilities that depend on level and prefix, drawn from a seed. Brute force is easy on it. */
import assert from 'node:assert/strict';
import type { PolicyVersion } from '@onemall/contracts';
import type { Decoding, PolicyRuntime } from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { type LoadedPolicy, loadedPolicy } from '../src/retrieval.ts';
import { searchHere } from '../src/search.ts';
import type { NumCodes } from '../src/stages/build-trie.ts';

export class PolicyTable {
  readonly numCodes: NumCodes;
  readonly #seed: number;
  readonly #rows = new Map<string, Float32Array>();
  readonly #rounding: number;
  /** @param rounding log-probabilities become whole multiples of 1 / rounding; 0 leaves them */
  constructor(numCodes: NumCodes, seed: number, rounding = 0) {
    this.numCodes = numCodes;
    this.#seed = seed;
    this.#rounding = rounding;
  }

  /** log-softmax over the codes that may follow a prefix. */
  row(prefix: readonly number[]): Float32Array {
    const key = prefix.join(',');
    let row = this.#rows.get(key);
    if (!row) {
      const random = new SeededRandom(prefix.reduce((h, c) => h * 31 + c + 1, this.#seed));
      const logits = Array.from({ length: this.numCodes[prefix.length]! }, () => 2 * random.normal());
      const logSum = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
      const rounded = (x: number): number =>
        this.#rounding === 0 ? x : Math.round(x * this.#rounding) / this.#rounding;
      row = Float32Array.from(logits, (x) => rounded(x - logSum));
      this.#rows.set(key, row);
    }
    return row;
  }

  /** log-probabilities after n prefixes of one length. */
  #rowsOf(level: number, prefixes: Int32Array, n: number): Float32Array {
    const width = this.numCodes[level]!;
    const out = new Float32Array(n * width);
    for (let i = 0; i < n; i++)
      out.set(this.row([...prefixes.subarray(i * level, (i + 1) * level)]), i * width);
    return out;
  }

  /** A beam search over the table; `before` is called at each level. */
  decoding(before: () => Promise<void> = async () => {}): Decoding {
    let firsts = new Int32Array(0);
    return {
      user: null,
      first: async () => {
        await before();
        return this.row([]);
      },
      next: async (level, codes, parents, asked) => {
        await before();
        const prefixes = new Int32Array(codes.length * level);
        for (const [i, code] of codes.entries())
          prefixes.set(level === 1 ? [code] : [firsts[parents[i]!]!, code], i * level);
        if (level === 1) firsts = codes.slice();
        const all = this.#rowsOf(level, prefixes, codes.length);
        const wanted = Array.from(codes, (_, row) => [
          ...asked.codes.subarray(asked.from[row], asked.to[row]).map((c) => row * this.numCodes[level] + c),
        ]);
        return Float32Array.from(wanted.flat(), (at) => all[at]!);
      },
      release: () => {},
    };
  }

  /** log p(sid), level by level. */
  tokenLogProbs({ c1, c2, c3 }: { c1: number; c2: number; c3: number }): [number, number, number] {
    return [this.row([])[c1]!, this.row([c1])[c2]!, this.row([c1, c2])[c3]!];
  }
}

export const publication = (policyVersion: string, step: number): PolicyVersion => ({
  model: 'RETRIEVER',
  policyVersion,
  uri: `policies/retriever/${step}`,
  sha256: policyVersion,
  step,
  codebookVersions: { product_card: 1, live_stream: 1 },
  metrics: {},
  createdMs: 0,
});

export interface TablePolicy extends LoadedPolicy {
  readonly table: PolicyTable;
  /** Decode calls so far, and whether it was closed. */
  readonly seen: { decodes: number; closed: boolean };
}

/** A policy as the retriever holds it, answered by a table. `beforeDecode` may hold a search up. */
export function tablePolicy(
  policyVersion: string,
  options: {
    seed?: number;
    numCodes?: NumCodes;
    beforeDecode?: () => Promise<void>;
  } = {},
): TablePolicy {
  const { seed = 1, numCodes = [8, 8, 8], beforeDecode } = options;
  const table = new PolicyTable(numCodes, seed);
  const seen = { decodes: 0, closed: false };
  const scenarios = ['product_card', 'live_stream'];
  const runtime: PolicyRuntime = {
    manifest: {
      model: 'RETRIEVER',
      policyVersion,
      format: 2,
      dim: 1,
      contextRows: 0,
      cacheWidth: 0,
      itemTowerRows: 1,
      step: seed,
      preset: 'table',
      scenarios,
      codebookVersions: { product_card: 1, live_stream: 1 },
      numCodes: { product_card: [...numCodes], live_stream: [...numCodes] },
      historyLength: 4,
      beamWidths: [16],
      files: {},
    },
    encode: async ({ scenario }) => ({ scenario, data: new Float32Array(0) }),
    begin: () =>
      table.decoding(async () => {
        if (seen.closed) throw new Error('decode after close');
        seen.decodes++;
        await beforeDecode?.();
      }),
    decode: () => assert.fail('searches decode step by step'),
    async close() {
      seen.closed = true;
    },
  };
  return { ...loadedPolicy(publication(policyVersion, seed), searchHere(runtime)), table, seen };
}
