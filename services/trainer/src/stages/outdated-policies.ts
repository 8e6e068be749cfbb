/**
 * Published policies that give way to the one just published.
 *
 * A step is trained a second time after training began anew or fell back to an older checkpoint. Policies of later steps,
 * and others of the same step, then belong to a past that was given up: they go first, whatever their number says.
 * What is left goes oldest first. The one just published always stays.
 *
 * outdatedPolicies(['p/0000000900-a', 'p/0000000100-b'], 'p/0000000100-b', 1) is ['p/0000000900-a']
 *
 * @param uris `<folder>/<step of ten digits>-<hash>`; other names are left alone
 * @param keep how many stay, at least 1
 */
export function outdatedPolicies(uris: readonly string[], published: string, keep: number): string[] {
  const now = stepOf(published);
  const others = uris
    .filter((uri) => uri !== published && Number.isFinite(stepOf(uri)))
    .toSorted((a, b) => rank(b, now) - rank(a, now));
  return others.slice(Math.max(0, keep - 1));
}

/** Newer is higher; below all steps where the past was given up. */
const rank = (uri: string, now: number): number => (stepOf(uri) < now ? stepOf(uri) : -stepOf(uri) - 1);

/** NaN for another kind of name. */
const stepOf = (uri: string): number => Number(/\/(\d{10})-[0-9a-f]+$/.exec(uri)?.[1] ?? Number.NaN);
