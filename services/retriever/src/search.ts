/** One search as a message: what a thread needs to know of a request, and what it answers. */
import type { RequestTensors } from '@onemall/features';
import type { PolicyManifest, PolicyRuntime } from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import type { SidTrie } from './stages/build-trie.ts';
import type { Exclusion } from './stages/exclude-sids.ts';
import { sampleSids } from './stages/sample-sids.ts';
import { beamSearch, type FoundSids, unconstrainedBeam } from './stages/search-beam.ts';

export interface SearchJob {
  /** beam: the best SIDs of the trie; sample: drawn without replacement; unconstrained: the best of all codes. */
  kind: 'beam' | 'sample' | 'unconstrained';
  request: RequestTensors;
  trie: SidTrie;
  exclusion: Exclusion;
  beamWidth: number;
  /** Of the draw; only `sample` reads it. */
  seed: number;
}

/** A policy that can be searched, wherever its graphs run. */
export interface PolicySearch {
  readonly manifest: PolicyManifest;
  /** @throws the signal's reason when it fires before the end */
  search(job: SearchJob, signal?: AbortSignal): Promise<FoundSids>;
  close(): Promise<void>;
}

/**
 * User context once, then three decode steps.
 * @param checkTime called between them; throws when nobody waits for the answer any more
 */
export async function runSearch(
  runtime: PolicyRuntime,
  { kind, request, trie, exclusion, beamWidth, seed }: SearchJob,
  checkTime: () => void,
): Promise<FoundSids> {
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
    if (kind === 'unconstrained') return await unconstrainedBeam(trie.numCodes, timed, beamWidth);
    if (kind === 'sample') return await sampleSids(trie, timed, beamWidth, new SeededRandom(seed), exclusion);
    return await beamSearch(trie, timed, beamWidth, exclusion);
  } finally {
    decoding.release();
  }
}

/** Searches on the calling thread: for tests, and the slow twin of threads. */
export const searchHere = (runtime: PolicyRuntime): PolicySearch => ({
  manifest: runtime.manifest,
  search: (job, signal) => runSearch(runtime, job, () => signal?.throwIfAborted()),
  close: () => runtime.close(),
});
