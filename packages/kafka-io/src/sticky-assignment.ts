/** Which member owns which partition number, of all topics of a group alike. Pure. */
export interface Claimant {
  memberId: string;
  /** What it owned until now. */
  owned: readonly number[];
}

/**
 * Every partition in [0, numPartitions) to exactly one member, counts differing by at most one, and as many as
 * possible where they were. The same members and claims give the same answer in any order.
 * @example assignSticky(4, [{ memberId: 'a', owned: [0, 1, 2, 3] }, { memberId: 'b', owned: [] }])
 * // a keeps 0 and 1, b gets 2 and 3
 */
export function assignSticky(numPartitions: number, members: readonly Claimant[]): Map<string, number[]> {
  const sorted = members.toSorted((a, b) => (a.memberId < b.memberId ? -1 : 1));
  const free = new Set(Array.from({ length: numPartitions }, (_, p) => p));
  const claims = sorted.map(({ memberId, owned }) => {
    const kept = [...new Set(owned)].sort((a, b) => a - b).filter((p) => free.delete(p));
    return { memberId, kept };
  });
  // Those who hold most take the larger shares, so that fewer partitions move.
  const byHolding = claims.toSorted((a, b) => b.kept.length - a.kept.length);
  const least = Math.floor(numPartitions / sorted.length);
  const larger = numPartitions % sorted.length;
  const shares = byHolding.map((claim, i) => ({ ...claim, share: least + (i < larger ? 1 : 0) }));
  for (const { kept, share } of shares) for (const p of kept.splice(share)) free.add(p);
  const left = [...free].sort((a, b) => a - b);
  for (const { kept, share } of shares) kept.push(...left.splice(0, share - kept.length));
  return new Map(shares.map(({ memberId, kept }) => [memberId, kept.sort((a, b) => a - b)]));
}
