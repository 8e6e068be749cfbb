/** One retrieval: request -> user context -> beam over the SIDs that exist now -> items. HTTP, rollouts and the hit rate all take this path. */
import type { PolicyVersion } from '@onemall/contracts';
import { itemTensors, type RequestContext, type SidLayout, sidLayout } from '@onemall/features';
import type { PolicySearch, SearchJob, SearchResult } from './search.ts';
import { addDenseScores } from './stages/add-dense-scores.ts';
import { emptyTrie, leafOf, type NumCodes, type SidTrie } from './stages/build-trie.ts';
import { encodeRequest } from './stages/encode-request.ts';
import { excludeSids, NO_EXCLUSION } from './stages/exclude-sids.ts';
import type { Normalizer } from './stages/search-beam.ts';
import { type ItemOrder, type ServedItem, type Shelves, serveItems } from './stages/serve-items.ts';
import { ItemVectors } from './state/item-vectors.ts';
import type { Popularity } from './state/popularity.ts';
import type { SidCatalogue } from './state/sid-catalogue.ts';
import { TrieWeights } from './state/trie-weights.ts';

export interface LoadedPolicy {
  readonly publication: PolicyVersion;
  readonly search: PolicySearch;
  readonly layout: SidLayout;
  /** Item side of the dense head. */
  readonly vectors: ItemVectors;
}

export function loadedPolicy(publication: PolicyVersion, search: PolicySearch): LoadedPolicy {
  const { scenarios, numCodes } = search.manifest;
  const vectors = new ItemVectors((items, signal) => search.embed(items, signal));
  return { publication, search, layout: sidLayout(scenarios, numCodes), vectors };
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
  /** Of the dense head's cosine in the final score; 0: the beam alone. */
  denseWeight: number;
  nowMs: () => number;
}

export class Retrieval {
  readonly #parts: RetrievalParts;
  readonly #weights = new TrieWeights();
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
  ): Promise<SearchResult> {
    const { trie, exclusion } = this.#narrowed(policy, request.scenario, options.filters ?? NO_FILTERS);
    const { beamWidth, sample, signal } = options;
    const job: SearchJob = {
      kind: sample ? 'sample' : 'beam',
      request: this.#encode(policy, request),
      trie,
      exclusion,
      beamWidth,
      normalizer: this.#normalizer(policy, request.scenario, trie),
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
    const { found, user } = await this.searchSids(policy, request, options);
    const categories = new Set(filters.categories);
    const { catalogue, denseWeight, itemOrder } = this.#parts;
    const rescoring = denseWeight > 0 && user !== null;
    const served = serveItems(found, this.shelves(policy, request.scenario), {
      k: rescoring ? Number.POSITIVE_INFINITY : options.k,
      order: itemOrder,
      accept: (itemId) =>
        !filters.excludeItemIds.has(itemId) &&
        (categories.size === 0 || catalogue.inCategory(itemId, categories)),
    });
    if (!rescoring) return served;
    const vectors = await this.#itemVectors(policy, request.scenario, served, options.signal);
    return addDenseScores(served, user, vectors, denseWeight).slice(0, options.k);
  }

  /** f_item of what was found, with the features and SIDs of now. */
  async #itemVectors(
    { publication, layout, vectors }: LoadedPolicy,
    scenario: string,
    served: readonly ServedItem[],
    signal: AbortSignal | undefined,
  ): Promise<Float32Array[]> {
    const { catalogue, nowMs } = this.#parts;
    const now = nowMs();
    // a product on sale may be of another scenario than the room: its SID is of that one's codebook
    const lookupSid = (itemId: string) => {
      const product = catalogue.item(itemId);
      const version = product && publication.codebookVersions[product.scenario];
      return version === undefined ? null : catalogue.sidAsOf(version, itemId, now);
    };
    const items = served.map(({ itemId, sid }) => {
      const features = catalogue.features(itemId);
      const tensors = itemTensors({ scenario, features, sid: { scenario, ...sid } }, lookupSid, { layout });
      return { itemId, tensors };
    });
    return vectors.of(items, signal);
  }

  /** How many SIDs of an unconstrained beam exist now. */
  async legality(
    policy: LoadedPolicy,
    request: RequestContext,
    beamWidth: number,
  ): Promise<{ searched: number; existing: number }> {
    const { trie, exclusion } = this.#narrowed(policy, request.scenario, NO_FILTERS);
    const { found } = await policy.search.search({
      kind: 'unconstrained',
      request: this.#encode(policy, request),
      // what exists is looked up here: the thread needs the codes per level only
      trie: emptyTrie(trie.numCodes),
      exclusion,
      beamWidth,
      normalizer: 'codes',
      seed: 0,
    });
    return { searched: found.size, existing: found.packed.filter((sid) => leafOf(trie, sid) >= 0).length };
  }

  shelves(policy: LoadedPolicy, scenario: string): Shelves {
    const { catalogue, popularity } = this.#parts;
    const version = policy.publication.codebookVersions[scenario]!;
    return {
      itemsOf: (packed) => catalogue.itemsOf(scenario, version, packed),
      standing: (itemId) => ({
        popularity: popularity.of(itemId),
        freshMs: catalogue.item(itemId)?.validFromMs ?? 0,
        seen: popularity.countOf(itemId),
      }),
    };
  }

  #normalizer({ search, publication }: LoadedPolicy, scenario: string, trie: SidTrie): Normalizer {
    const { normalizer = 'codes' } = search.manifest;
    if (normalizer !== 'popular') return normalizer;
    const { catalogue, popularity, nowMs } = this.#parts;
    const version = publication.codebookVersions[scenario]!;
    return this.#weights.of(
      trie,
      (packed) => catalogue.itemsOf(scenario, version, packed),
      (itemId) => popularity.countOf(itemId),
      nowMs(),
    );
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
