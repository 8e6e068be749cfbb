/** The SIDs that exist at a moment, as tries: what a beam may find, and what a softmax over valid children runs over. */
import type { SidCodes } from '@onemall/features';
import type { SidChildren } from '@onemall/learning';
import { buildTrie, packSid, type SidTrie } from '@onemall/retriever/src/stages/build-trie.ts';
import type { ScenarioName } from '@onemall/simulator/world';
import type { SemanticIds } from './semantic-ids.ts';
import { candidatesOf } from './simple-lists.ts';
import type { WorldLog } from './world-log.ts';

/** The items of a scenario by SID. */
export interface SidShelf {
  timeMs: number;
  trie: SidTrie;
  items: ReadonlyMap<number, number[]>;
}

export class ExistingSids {
  readonly #log: WorldLog;
  readonly #sids: SemanticIds;
  readonly #staleMs: number;
  readonly #built = new Map<ScenarioName, SidShelf>();

  /** @param staleMs rooms may be those of so much earlier or later; cards and videos never change */
  constructor(log: WorldLog, sids: SemanticIds, staleMs = 0) {
    this.#log = log;
    this.#sids = sids;
    this.#staleMs = staleMs;
  }

  asOf(scenario: ScenarioName, timeMs: number): SidShelf {
    const known = this.#built.get(scenario);
    if (known && (scenario !== 'live_stream' || Math.abs(known.timeMs - timeMs) <= this.#staleMs))
      return known;
    const shelf = { timeMs, ...this.#build(scenario, timeMs) };
    this.#built.set(scenario, shelf);
    return shelf;
  }

  /** By level, the codes that continue a SID which exists; none below a code that does not. */
  children(target: SidCodes, timeMs: number): SidChildren {
    const { trie } = this.asOf(target.scenario as ScenarioName, timeMs);
    const none = new Int32Array(0);
    const first = indexIn(trie.codes1, 0, trie.codes1.length, target.c1);
    if (first < 0) return [trie.codes1, none, none];
    const [from, to] = [trie.starts2[first]!, trie.starts2[first + 1]!];
    const second = indexIn(trie.codes2, from, to, target.c2);
    const seconds = trie.codes2.subarray(from, to);
    if (second < 0) return [trie.codes1, seconds, none];
    return [
      trie.codes1,
      seconds,
      trie.codes3.subarray(trie.starts3[second]!, trie.starts3[second + 1]!),
    ];
  }

  #build(scenario: ScenarioName, timeMs: number) {
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
    return { trie, items };
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
