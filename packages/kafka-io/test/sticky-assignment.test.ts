import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { assignSticky, type Claimant } from '../src/sticky-assignment.ts';

const claimants = fc
  .uniqueArray(fc.string({ minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 8 })
  .chain((ids) =>
    fc.tuple(
      ...ids.map((memberId) =>
        fc.record({ memberId: fc.constant(memberId), owned: fc.array(fc.integer({ min: -1, max: 40 })) }),
      ),
    ),
  );

describe('the co-partition assignment', () => {
  it('gives every partition to exactly one member, evenly, whatever the claims', () => {
    fc.assert(
      fc.property(fc.nat(40), claimants, (numPartitions, members: Claimant[]) => {
        const shares = assignSticky(numPartitions, members);
        assert.deepEqual(new Set(shares.keys()), new Set(members.map((m) => m.memberId)));
        const given = [...shares.values()].flat().sort((a, b) => a - b);
        assert.deepEqual(
          given,
          Array.from({ length: numPartitions }, (_, p) => p),
        );
        const sizes = [...shares.values()].map((s) => s.length);
        assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it('moves nothing while the members stay, and does not depend on their order', () => {
    fc.assert(
      fc.property(fc.nat(40), claimants, (numPartitions, members: Claimant[]) => {
        const first = assignSticky(numPartitions, members);
        const again = [...first].map(([memberId, owned]) => ({ memberId, owned }));
        assert.deepEqual(assignSticky(numPartitions, again), first);
        const reversed = assignSticky(numPartitions, again.toReversed());
        for (const [memberId, owned] of first) assert.deepEqual(reversed.get(memberId), owned);
      }),
      { seed: 2, numRuns: 300 },
    );
  });

  it('takes only as many partitions from a member as a newcomer needs', () => {
    const shares = assignSticky(6, [
      { memberId: 'a', owned: [0, 2, 4] },
      { memberId: 'b', owned: [1, 3, 5] },
      { memberId: 'new', owned: [] },
    ]);
    assert.deepEqual(shares.get('a'), [0, 2]);
    assert.deepEqual(shares.get('b'), [1, 3]);
    assert.deepEqual(shares.get('new'), [4, 5]);
  });

  it('gives the partitions of a member that left to the others and leaves theirs alone', () => {
    const shares = assignSticky(4, [
      { memberId: 'a', owned: [0, 3] },
      { memberId: 'b', owned: [1] },
    ]);
    assert.deepEqual(shares.get('a'), [0, 3]);
    assert.deepEqual(shares.get('b'), [1, 2]);
  });
});
