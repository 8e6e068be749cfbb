/** What the policy reads of a request: its history as SIDs of the policy's own codebook versions, as of the request. */
import type { Sid } from '@onemall/contracts';
import {
  type RequestContext,
  type RequestTensors,
  requestTensors,
  type SidCodes,
  type SidLayout,
} from '@onemall/features';
import type { PolicyManifest } from '@onemall/learning';
import { fitsCodebook } from './build-trie.ts';

/** SID of an item in one codebook version as of a moment; null where none is known. */
export type SidAsOf = (codebookVersion: number, itemId: string, timeMs: number) => Sid | null;

export function encodeRequest(
  manifest: PolicyManifest,
  layout: SidLayout,
  request: RequestContext,
  sidAsOf: SidAsOf,
): RequestTensors {
  const versions = new Set(Object.values(manifest.codebookVersions));
  const lookup = (itemId: string): SidCodes | null => {
    for (const version of versions) {
      const sid = sidAsOf(version, itemId, request.requestTimeMs);
      // one version number may belong to different codebooks: each scenario counts its own
      if (!sid || manifest.codebookVersions[sid.scenario] !== version) continue;
      const numCodes = manifest.numCodes[sid.scenario];
      if (numCodes && fitsCodebook(numCodes, sid)) return sid;
    }
    return null;
  };
  return requestTensors(request, lookup, { historyLength: manifest.historyLength, layout });
}
