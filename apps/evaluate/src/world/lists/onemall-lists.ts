/** The list of a OneMall policy: the beam that serves, over the SIDs that exist as of the request, and the items behind them. */
import type { SidCodes } from '@onemall/features';
import type { PolicyNormalizer, PolicyRuntime, SidChildren } from '@onemall/learning';
import type { SidTrie } from '@onemall/retriever/src/stages/build-trie.ts';
import { NO_EXCLUSION } from '@onemall/retriever/src/stages/exclude-sids.ts';
import { beamSearch, type FoundSids, type NodeWeights } from '@onemall/retriever/src/stages/search-beam.ts';
import { firstItem, type Shelves } from '@onemall/retriever/src/stages/serve-items.ts';
import type { ScenarioName } from '@onemall/simulator/world';
import type { Popularity } from '../log/popularity.ts';
import type { WorldLog } from '../log/world-log.ts';
import { ExistingSids } from '../samples/existing-sids.ts';
import { childrenFor, type HistoryKinds, SampleEncoder } from '../samples/sample-encoder.ts';
import type { SemanticIds } from '../samples/semantic-ids.ts';
import type { AskedRequest, ListModel } from './list-model.ts';

/** All SIDs of the catalogue as tries, and the items behind them; live rooms as of any moment that the log has reached. */
export class Shelf {
  readonly #log: WorldLog;
  readonly #popularity: Popularity;
  readonly #existing: ExistingSids;

  constructor(log: WorldLog, sids: SemanticIds, popularity: Popularity) {
    this.#log = log;
    this.#existing = new ExistingSids(log, sids, popularity);
    this.#popularity = popularity;
  }

  /**
   * The items behind SIDs, best first: a SID's probability falls to its items by their share of its popularity, so that rare
   * near-duplicates on a good SID do not come before what is popular on the next.
   */
  itemsOf({ scenario, requestTimeMs }: AskedRequest, found: FoundSids, depth: number): Int32Array {
    const { items } = this.#existing.asOf(scenario, requestTimeMs);
    const scored: { item: number; score: number }[] = [];
    for (let i = 0; i < found.size; i++) {
      const own = items.get(found.packed[i]!) ?? [];
      const seen = own.map((item) => 1 + this.#popularity.of(item));
      const total = seen.reduce((a, b) => a + b, 0);
      own.forEach((item, at) => {
        scored.push({ item, score: found.scores[i]! + Math.log(seen[at]! / total) });
      });
    }
    scored.sort((a, b) => b.score - a.score || a.item - b.item);
    return Int32Array.from(scored.slice(0, depth), ({ item }) => item);
  }

  /** What may follow a SID's codes, for a trainer whose policy searches this shelf. */
  children(normalizer: PolicyNormalizer, sid: SidCodes, timeMs: number): SidChildren {
    return childrenFor(normalizer, this.#existing, sid, timeMs);
  }

  /** Candidates as of a moment. */
  of(scenario: ScenarioName, timeMs: number): { trie: SidTrie; weights: NodeWeights; shelves: Shelves } {
    const { trie, weights, items } = this.#existing.asOf(scenario, timeMs);
    return {
      trie,
      weights,
      shelves: {
        itemsOf: (packed) => (items.get(packed) ?? []).map((item) => this.#log.itemId(item)),
        standing: (itemId) => {
          const item = this.#log.itemNumber(itemId);
          const seen = this.#popularity.of(item);
          return { popularity: seen, seen, freshMs: this.#log.facts(item).validFromMs };
        },
      },
    };
  }
}

/** The policy behind the beam of the retriever. */
export class OneMallLists implements ListModel {
  readonly name: string;
  readonly #policy: PolicyRuntime;
  readonly #encoder: SampleEncoder;
  readonly #shelf: Shelf;
  readonly #normalizer: PolicyNormalizer;

  constructor(
    name: string,
    log: WorldLog,
    sids: SemanticIds,
    shelf: Shelf,
    policy: PolicyRuntime,
    normalizer: PolicyNormalizer,
    reads: HistoryKinds = 'all',
  ) {
    this.name = name;
    this.#policy = policy;
    this.#shelf = shelf;
    this.#normalizer = normalizer;
    this.#encoder = new SampleEncoder(log, sids, policy.manifest.historyLength, 'codes', reads);
  }

  /** The item that a SID stands for, as the retriever would serve it. */
  firstItem({ scenario, requestTimeMs }: AskedRequest, packed: number): string | null {
    return firstItem(this.#shelf.of(scenario, requestTimeMs).shelves, packed, 'popularity');
  }

  /** SIDs of the beam, best first. */
  async beam({ request, scenario, requestTimeMs }: AskedRequest, width: number): Promise<FoundSids> {
    const context = await this.#policy.encode(this.#encoder.request(request));
    const { trie, weights } = this.#shelf.of(scenario, requestTimeMs);
    const normalizer = this.#normalizer === 'popular' ? weights : this.#normalizer;
    const decoding = this.#policy.begin(context);
    try {
      return await beamSearch(trie, decoding, width, NO_EXCLUSION, normalizer);
    } finally {
      decoding.release();
    }
  }

  async rank(asked: AskedRequest, depth: number): Promise<Int32Array> {
    const found = await this.beam(asked, depth);
    return this.#shelf.itemsOf(asked, found, depth);
  }
}
