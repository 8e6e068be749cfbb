import type { SidCodes } from '@onemall/features';

type Counts = readonly [number, number, number];
type Children = readonly [Int32Array, Int32Array, Int32Array];

/**
 * The SIDs that exist, as the trie that a beam goes down: which codes may stand at a level after given codes. One sorted list of
 * numbers per scenario, 8 bytes a SID.
 */
export class ExistingSids {
  readonly #numCodes: Readonly<Record<string, Counts>>;
  /** By scenario, ascending: (c1 K2 + c2) K3 + c3. */
  readonly #sorted = new Map<string, Float64Array>();
  readonly #firstCodes = new Map<string, Int32Array>();

  /** @param numCodes K1, K2, K3 by scenario; SIDs of others are passed over */
  constructor(sids: Iterable<SidCodes>, numCodes: Readonly<Record<string, Counts>>) {
    this.#numCodes = numCodes;
    const numbers = new Map<string, number[]>();
    for (const { scenario, c1, c2, c3 } of sids) {
      const counts = numCodes[scenario];
      if (!counts) continue;
      const own = numbers.get(scenario);
      const number = (c1 * counts[1] + c2) * counts[2] + c3;
      if (own) own.push(number);
      else numbers.set(scenario, [number]);
    }
    for (const [scenario, own] of numbers) {
      const sorted = Float64Array.from(own).sort();
      const [, k2, k3] = numCodes[scenario]!;
      this.#sorted.set(scenario, sorted);
      this.#firstCodes.set(scenario, distinctCodes(sorted, 0, sorted.length, k2 * k3, 0));
    }
  }

  /** The codes that exist at each level after the SID's own codes before it, ascending; empty where nothing goes on. */
  childrenAlong({ scenario, c1, c2 }: SidCodes): Children {
    const sorted = this.#sorted.get(scenario);
    if (!sorted) return [NONE, NONE, NONE];
    const [, k2, k3] = this.#numCodes[scenario]!;
    const within = (first: number, size: number, step: number): Int32Array => {
      const from = firstAtLeast(sorted, first);
      return distinctCodes(sorted, from, firstAtLeast(sorted, first + size, from), step, first);
    };
    return [
      this.#firstCodes.get(scenario)!,
      within(c1 * k2 * k3, k2 * k3, k3),
      within((c1 * k2 + c2) * k3, k3, 1),
    ];
  }
}

const NONE = new Int32Array(0);

/** floor((number - first) / step) of sorted[from..to), each once. */
function distinctCodes(
  sorted: Float64Array,
  from: number,
  to: number,
  step: number,
  first: number,
): Int32Array {
  const codes: number[] = [];
  for (let i = from; i < to; i++) {
    const code = Math.floor((sorted[i]! - first) / step);
    if (code !== codes.at(-1)) codes.push(code);
  }
  return Int32Array.from(codes);
}

/** Index of the first element >= x. */
function firstAtLeast(ascending: Float64Array, x: number, low = 0): number {
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < x) low = middle + 1;
    else high = middle;
  }
  return low;
}
