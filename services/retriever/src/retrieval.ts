/** One retrieval: request -> user context -> beam over the SIDs that exist now -> items. HTTP, rollouts and the hit rate all take this path. */
import type { PolicyVersion } from '@onemall/contracts';
import { type RequestContext, type SidLayout, sidLayout } from '@onemall/features';
import type { PolicySearch, SearchJob } from './search.ts';
import { emptyTrie, leafOf, type NumCodes, type SidTrie } from './stages/build-trie.ts';
import { encodeRequest } from './stages/encode-request.ts';
import { excludeSids, NO_EXCLUSION } from './stages/exclude-sids.ts';
import type { FoundSids } from './stages/search-beam.ts';
import { type ItemOrder, type ServedItem, type Shelves, serveItems } from './stages/serve-items.ts';
import type { Popularity } from './state/popularity.ts';
import type { SidCatalogue } from './state/sid-catalogue.ts';

export interface LoadedPolicy {
  readonly publication: PolicyVersion;
  readonly search: PolicySearch;
  readonly layout: SidLayout;
}

export function loadedPolicy(publication: PolicyVersion, search: PolicySearch): LoadedPolicy {
  const { scenarios, numCodes } = search.manifest;
  return { publication, search, layout: sidLayout(scenarios, numCodes) };
}

/** The policy or the catalogue has nothing for the scenario; the message says which. */
export class NothingToServeError extends Error {
  override name = 'NothingToServeError';
}

export interface Filters {
  /** Only items of these categories; empty for all. */
  categories: readonly string[];
  excludeItemIds: ReadonlySet<string>;
}
const NO_FILTERS: Filters = { categories: [], excludeItemIds: new Set() };

export interface RetrievalParts {
  catalogue: SidCatalogue;
  popularity: Popularity;
  itemOrder: ItemOrder;
  nowMs: () => number;
}

export class Retrieval {
  readonly #parts: RetrievalParts;
  constructor(parts: RetrievalParts) {
    this.#parts = parts;
  }

  /**
   * The SIDs of the beam, best first; with `sample` drawn without replacement, in the order of the draw.
   * @throws NothingToServeError
   */
  async searchSids(
    policy: LoadedPolicy,
    request: RequestContext,
    options: {
      beamWidth: number;
      filters?: Filters;
      signal?: AbortSignal;
      /** Draws in place of the beam. */
      sample?: { seed: number };
    },
  ): Promise<FoundSids> {
    const { trie, exclusion } = this.#narrowed(policy, request.scenario, options.filters ?? NO_FILTERS);
    const { beamWidth, sample, signal } = options;
    const job: SearchJob = {
      kind: sample ? 'sample' : 'beam',
      request: this.#encode(policy, request),
      trie,
      exclusion,
      beamWidth,
      seed: sample?.seed ?? 0,
    };
    return policy.search.search(job, signal);
  }

  /**
   * The first k items that the policy finds for the request and the filters accept.
   * @throws NothingToServeError
   */
  async retrieve(
    policy: LoadedPolicy,
    request: RequestContext,
    options: { k: number; beamWidth: number; filters?: Filters; signal?: AbortSignal },
  ): Promise<ServedItem[]> {
    const filters = options.filters ?? NO_FILTERS;
    const found = await this.searchSids(policy, request, options);
    const categories = new Set(filters.categories);
    const { catalogue, itemOrder } = this.#parts;
    return serveItems(found, this.shelves(policy, request.scenario), {
      k: options.k,
      order: itemOrder,
      accept: (itemId) =>
        !filters.excludeItemIds.has(itemId) &&
        (categories.size === 0 || catalogue.inCategory(itemId, categories)),
    });
  }

  /** How many SIDs of an unconstrained beam exist now. */
  async legality(
    policy: LoadedPolicy,
    request: RequestContext,
    beamWidth: number,
  ): Promise<{ searched: number; existing: number }> {
    const { trie, exclusion } = this.#narrowed(policy, request.scenario, NO_FILTERS);
    const { size, packed } = await policy.search.search({
      kind: 'unconstrained',
      request: this.#encode(policy, request),
      // what exists is looked up here: the thread needs the codes per level only
      trie: emptyTrie(trie.numCodes),
      exclusion,
      beamWidth,
      seed: 0,
    });
    return { searched: size, existing: packed.filter((sid) => leafOf(trie, sid) >= 0).length };
  }

  shelves(policy: LoadedPolicy, scenario: string): Shelves {
    const { catalogue, popularity } = this.#parts;
    const version = policy.publication.codebookVersions[scenario]!;
    return {
      itemsOf: (packed) => catalogue.itemsOf(scenario, version, packed),
      standing: (itemId) => ({
        popularity: popularity.of(itemId),
        freshMs: catalogue.item(itemId)?.validFromMs ?? 0,
      }),
    };
  }

  #narrowed(policy: LoadedPolicy, scenario: string, filters: Filters) {
    const { catalogue, nowMs } = this.#parts;
    const { numCodes, codebookVersions, policyVersion } = policy.search.manifest;
    const codes: NumCodes | undefined = numCodes[scenario];
    const version = codebookVersions[scenario];
    if (codes === undefined || version === undefined)
      throw new NothingToServeError(
        `Policy ${policyVersion} knows the scenarios ${Object.keys(codebookVersions).join(', ')}, not ${scenario}`,
      );
    const all = catalogue.trie(scenario, version, codes, nowMs());
    if (all.packed.length === 0)
      throw new NothingToServeError(
        `No item of ${scenario} has a SID in codebook version ${version}, which policy ${policyVersion} needs`,
      );
    const trie: SidTrie =
      filters.categories.length === 0
        ? all
        : catalogue.trieOfCategories(all, scenario, version, filters.categories);
    const gone = this.#emptiedSids(scenario, version, filters.excludeItemIds);
    return { trie, exclusion: gone.length === 0 ? NO_EXCLUSION : excludeSids(trie, gone) };
  }

  /** SIDs whose items are all excluded. */
  #emptiedSids(scenario: string, version: number, excluded: ReadonlySet<string>): number[] {
    const { catalogue } = this.#parts;
    const gone = new Set<number>();
    for (const itemId of excluded) {
      const packed = catalogue.sidNow(scenario, version, itemId);
      if (packed === undefined || gone.has(packed)) continue;
      if ([...catalogue.itemsOf(scenario, version, packed)].every((id) => excluded.has(id))) gone.add(packed);
    }
    return [...gone];
  }

  #encode({ search, layout }: LoadedPolicy, request: RequestContext) {
    return encodeRequest(search.manifest, layout, request, (version, itemId, timeMs) =>
      this.#parts.catalogue.sidAsOf(version, itemId, timeMs),
    );
  }
}
