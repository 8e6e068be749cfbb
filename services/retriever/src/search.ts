/** One search as a message: what a thread needs to know of a request, and what it answers. */
import type { ItemTensors, RequestTensors } from '@onemall/features';
import type { ItemTowerRuntime, PolicyManifest, PolicyRuntime } from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import type { SidTrie } from './stages/build-trie.ts';
import type { Exclusion } from './stages/exclude-sids.ts';
import { sampleSids } from './stages/sample-sids.ts';
import { beamSearch, type FoundSids, type Normalizer, unconstrainedBeam } from './stages/search-beam.ts';

export interface SearchJob {
  /** beam: the best SIDs of the trie; sample: drawn without replacement; unconstrained: the best of all codes. */
  kind: 'beam' | 'sample' | 'unconstrained';
  request: RequestTensors;
  trie: SidTrie;
  exclusion: Exclusion;
  beamWidth: number;
  /** The one that the policy was trained with; only `beam` reads it. */
  normalizer: Normalizer;
  /** Of the draw; only `sample` reads it. */
  seed: number;
}

/** What a search found, and the user's side of the dense head (float32 [D], of length 1); null for a model without one. */
export interface SearchResult {
  found: FoundSids;
  user: Float32Array | null;
}

/** A policy that can be searched, wherever its graphs run. */
export interface PolicySearch {
  readonly manifest: PolicyManifest;
  /** @throws the signal's reason when it fires before the end */
  search(job: SearchJob, signal?: AbortSignal): Promise<SearchResult>;
  /**
   * f_item of the policy's item tower.
   * @returns float32 [items, D], each row of length 1
   * @throws the signal's reason when it fires before the beginning
   */
  embed(items: readonly ItemTensors[], signal?: AbortSignal): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * User context once, then three decode steps.
 * @param checkTime called between them; throws when nobody waits for the answer any more
 */
export async function runSearch(
  runtime: PolicyRuntime,
  { kind, request, trie, exclusion, beamWidth, normalizer, seed }: SearchJob,
  checkTime: () => void,
): Promise<SearchResult> {
  const context = await runtime.encode(request);
  const decoding = runtime.begin(context);
  const timed = {
    user: null,
    first: () => {
      checkTime();
      return decoding.first();
    },
    next: (...next: Parameters<typeof decoding.next>) => {
      checkTime();
      return decoding.next(...next);
    },
    release: () => {},
  };
  try {
    const found =
      kind === 'unconstrained'
        ? await unconstrainedBeam(trie.numCodes, timed, beamWidth)
        : kind === 'sample'
          ? await sampleSids(trie, timed, beamWidth, new SeededRandom(seed), exclusion)
          : await beamSearch(trie, timed, beamWidth, exclusion, normalizer);
    // a copy: the decoding's memory goes to the next search
    return { found, user: decoding.user?.slice() ?? null };
  } finally {
    decoding.release();
  }
}

/** Searches on the calling thread: for tests, and the slow twin of threads. */
export const searchHere = (runtime: PolicyRuntime, tower?: ItemTowerRuntime): PolicySearch => ({
  manifest: runtime.manifest,
  search: (job, signal) => runSearch(runtime, job, () => signal?.throwIfAborted()),
  async embed(items, signal) {
    signal?.throwIfAborted();
    if (!tower) throw new Error('This policy was opened without its item tower');
    return tower.embed(items);
  },
  async close() {
    await tower?.close();
    await runtime.close();
  },
});
