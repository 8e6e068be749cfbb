/** The SIDs that exist at a moment, as tries: what a beam may find, and what a softmax over valid children runs over. */
import type { SidCodes } from '@onemall/features';
import type { SidChildren } from '@onemall/learning';
import { buildTrie, packSid, type SidTrie } from '@onemall/retriever/src/stages/build-trie.ts';
import type { NodeWeights } from '@onemall/retriever/src/stages/search-beam.ts';
import { sumsBelow, weighTrie } from '@onemall/retriever/src/stages/weigh-trie.ts';
import type { ScenarioName } from '@onemall/simulator/world';
import { candidatesOf, type Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import type { SemanticIds } from './semantic-ids.ts';

/** The items of a scenario by SID. */
export interface SidShelf {
  timeMs: number;
  trie: SidTrie;
  items: ReadonlyMap<number, number[]>;
  /** log of how popular what lies below each node is. */
  weights: NodeWeights;
}
interface Tree extends Pick<SidShelf, 'trie' | 'items'> {
  /** Items of leaf i: ofLeaves[starts[i] .. starts[i + 1]). */
  starts: Int32Array;
  ofLeaves: Int32Array;
}

export class ExistingSids {
  readonly #log: WorldLog;
  readonly #sids: SemanticIds;
  readonly #popularity: Popularity;
  readonly #gridMs: number;
  readonly #built = new Map<ScenarioName, SidShelf>();
  /** Cards and videos never change. */
  readonly #trees = new Map<ScenarioName, Tree>();

  /**
   * @param gridMs 0: rooms and popularity as they are when asked, the caller following the log. Else both as of the last
   * multiple of this before the moment; the popularity is then this object's own, and moments must not go back
   */
  constructor(log: WorldLog, sids: SemanticIds, popularity: Popularity, gridMs = 0) {
    this.#log = log;
    this.#sids = sids;
    this.#popularity = popularity;
    this.#gridMs = gridMs;
  }

  asOf(scenario: ScenarioName, momentMs: number): SidShelf {
    const grid = this.#gridMs;
    const timeMs = grid > 0 ? Math.floor(momentMs / grid) * grid : momentMs;
    const known = this.#built.get(scenario);
    if (known?.timeMs === timeMs) return known;
    if (grid > 0) this.#popularity.followUntil(timeMs);
    let tree = this.#trees.get(scenario);
    if (!tree) {
      tree = this.#plant(scenario, timeMs);
      if (scenario !== 'live_stream') this.#trees.set(scenario, tree);
    }
    const { trie, items } = tree;
    const shelf = { timeMs, trie, items, weights: this.#weigh(tree) };
    this.#built.set(scenario, shelf);
    return shelf;
  }

  /** By level, the codes that continue a SID which exists, and their weights; none below a code that does not exist. */
  children(target: SidCodes, timeMs: number): SidChildren {
    const { trie, weights } = this.asOf(target.scenario as ScenarioName, timeMs);
    const none = { codes: new Int32Array(0), logWeights: new Float32Array(0) };
    const part = (level: 0 | 1 | 2, codes: Int32Array, from: number, to: number) => ({
      codes: codes.subarray(from, to),
      logWeights: weights[level].subarray(from, to),
    });
    const firsts = part(0, trie.codes1, 0, trie.codes1.length);
    const first = indexIn(trie.codes1, 0, trie.codes1.length, target.c1);
    if (first < 0) return [firsts, none, none];
    const [from, to] = [trie.starts2[first]!, trie.starts2[first + 1]!];
    const seconds = part(1, trie.codes2, from, to);
    const second = indexIn(trie.codes2, from, to, target.c2);
    if (second < 0) return [firsts, seconds, none];
    return [firsts, seconds, part(2, trie.codes3, trie.starts3[second]!, trie.starts3[second + 1]!)];
  }

  #plant(scenario: ScenarioName, timeMs: number): Tree {
    const items = new Map<number, number[]>();
    const candidates =
      scenario === 'live_stream' ? this.#log.roomsAt(timeMs) : candidatesOf(this.#log, scenario);
    for (const item of candidates) {
      const sid = this.#sids.sidAsOf(item, timeMs);
      if (!sid) continue;
      const packed = packSid(sid);
      const list = items.get(packed);
      if (list) list.push(item);
      else items.set(packed, [item]);
    }
    const trie = buildTrie(this.#sids.numCodes[scenario]!, Float64Array.from(items.keys()).sort());
    const starts = new Int32Array(trie.packed.length + 1);
    const ofLeaves: number[] = [];
    for (const [leaf, packed] of trie.packed.entries()) {
      ofLeaves.push(...items.get(packed)!);
      starts[leaf + 1] = ofLeaves.length;
    }
    return { trie, items, starts, ofLeaves: Int32Array.from(ofLeaves) };
  }

  /** Every item counts once more than it was seen. */
  #weigh({ trie, starts, ofLeaves }: Tree): NodeWeights {
    const seen = Float64Array.from(ofLeaves, (item) => 1 + this.#popularity.of(item));
    return weighTrie(trie, sumsBelow(starts, seen));
  }
}

/** Index of a code in an ascending part [from, to), or -1. */
function indexIn(codes: Int32Array, from: number, to: number, code: number): number {
  let low = from;
  let high = to - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const at = codes[middle]!;
    if (at === code) return middle;
    if (at < code) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
