import type { Codebook } from '@onemall/contracts';

/** SIDs exist in a codebook version whose record is gone. */
export class MissingCodebookError extends Error {
  override name = 'MissingCodebookError';
}

/**
 * The codebook versions of one scenario that are served: the lowest known, and those above it only when they are
 * followed. Readers stay on one version until they can switch, therefore the lowest stays.
 * @param published versions that have SIDs already
 * @throws MissingCodebookError if only newer versions are left than those of the published SIDs
 */
export function chooseVersions(
  scenario: string,
  known: readonly Codebook[],
  published: ReadonlySet<number>,
  follow: boolean,
): Codebook[] {
  const ascending = [...known].sort((a, b) => a.codebookVersion - b.codebookVersion);
  if (follow || ascending.length === 0) return ascending;
  const lowest = ascending[0]!;
  const inUse = Math.min(...published);
  if (published.size > 0 && lowest.codebookVersion > inUse)
    throw new MissingCodebookError(
      `SIDs of ${scenario} are published in codebook version ${inUse}, but codebooks only has version ${lowest.codebookVersion} and later. ` +
        'Set ONEMALL_FOLLOW_NEW_CODEBOOKS=true to serve that one, and let the readers of SIDs switch.',
    );
  return [lowest];
}
