import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import {
  buildTrie,
  emptyTrie,
  fitsCodebook,
  leafOf,
  mergeSids,
  type NumCodes,
  packSid,
  partOfTrie,
  unpackSid,
} from '../src/stages/build-trie.ts';
import { excludeSids, NO_EXCLUSION } from '../src/stages/exclude-sids.ts';
import { beamSearch, candidatesOf, type NodeWeights, unconstrainedBeam } from '../src/stages/search-beam.ts';
import { TopK } from '../src/stages/select-top.ts';
import { PolicyTable } from './policy-table.ts';

fc.configureGlobal({ seed: 11 });
const NUM_CODES: NumCodes = [6, 5, 7];
const sid = fc.record({ c1: fc.nat(5), c2: fc.nat(4), c3: fc.nat(6) });
const sids = fc.uniqueArray(sid, { selector: packSid, minLength: 1, maxLength: 120 });
const trieOf = (list: { c1: number; c2: number; c3: number }[]) =>
  buildTrie(NUM_CODES, mergeSids(new Float64Array(0), new Set(list.map(packSid)), new Set()));

/** All SIDs scored one by one: the slow twin of beam search at full width. */
function bruteForce(policy: PolicyTable, packed: Iterable<number>): { packed: number; score: number }[] {
  return [...packed]
    .map((p) => {
      const [a, b, c] = policy.tokenLogProbs(unpackSid(p));
      return { packed: p, score: a + b + c };
    })
    .sort((x, y) => y.score - x.score || x.packed - y.packed);
}

test('a packed SID unpacks to itself and sorts as its codes', () => {
  const wide = fc.record({ c1: fc.nat(131_071), c2: fc.nat(131_071), c3: fc.nat(131_071) });
  fc.assert(
    fc.property(wide, wide, (a, b) => {
      assert.deepEqual(unpackSid(packSid(a)), { ...a });
      const order = a.c1 - b.c1 || a.c2 - b.c2 || a.c3 - b.c3;
      assert.equal(Math.sign(packSid(a) - packSid(b)), Math.sign(order));
    }),
  );
});

test('fitsCodebook refuses codes outside the codebook and fractions', () => {
  assert.ok(fitsCodebook(NUM_CODES, { c1: 5, c2: 4, c3: 6 }));
  for (const wrong of [
    { c1: 6, c2: 0, c3: 0 },
    { c1: 0, c2: -1, c3: 0 },
    { c1: 0, c2: 0, c3: 0.5 },
  ])
    assert.ok(!fitsCodebook(NUM_CODES, wrong));
});

test('the trie holds exactly the SIDs it was built from', () => {
  fc.assert(
    fc.property(sids, (list) => {
      const trie = trieOf(list);
      const walked: number[] = [];
      trie.codes1.forEach((c1, i) => {
        for (let j = trie.starts2[i]!; j < trie.starts2[i + 1]!; j++)
          for (let leaf = trie.starts3[j]!; leaf < trie.starts3[j + 1]!; leaf++)
            walked.push(packSid({ c1, c2: trie.codes2[j]!, c3: trie.codes3[leaf]! }));
      });
      assert.deepEqual(
        walked,
        list.map(packSid).sort((a, b) => a - b),
      );
      for (const [leaf, packed] of walked.entries()) assert.equal(leafOf(trie, packed), leaf);
      assert.equal(leafOf(trie, -1), -1);
    }),
  );
});

test('merging in steps gives the set that entered minus the one that left', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(40)), { maxLength: 60 }), (moves) => {
      const expected = new Set<number>();
      let packed = new Float64Array(0);
      for (const [enters, id] of moves) {
        packed = mergeSids(packed, new Set(enters ? [id] : []), new Set(enters ? [] : [id])) as typeof packed;
        if (enters) expected.add(id);
        else expected.delete(id);
      }
      assert.deepEqual(
        [...packed],
        [...expected].sort((a, b) => a - b),
      );
    }),
  );
});

test('beam search at full width equals the exact top of a brute-force scorer', async () => {
  await fc.assert(
    fc.asyncProperty(sids, fc.nat(1000), fc.integer({ min: 1, max: 20 }), async (list, seed, k) => {
      const policy = new PolicyTable(NUM_CODES, seed);
      const trie = trieOf(list);
      const found = candidatesOf(await beamSearch(trie, policy.decoding(), 6 * 5 * 7));
      const exact = bruteForce(policy, trie.packed);
      assert.deepEqual(
        found.slice(0, k).map((c) => c.packed),
        exact.slice(0, k).map((c) => c.packed),
      );
      assert.equal(found.length, list.length);
      for (const candidate of found) {
        const [a, b, c] = policy.tokenLogProbs(candidate);
        assert.deepEqual(candidate.tokenLogProbs, [a, b, c]);
        assert.ok(Math.abs(candidate.score - (a + b + c)) < 1e-9);
      }
    }),
    { numRuns: 150 },
  );
});

test('with the softmax over the children of the trie, SIDs have probability one together, weights counting', async () => {
  await fc.assert(
    fc.asyncProperty(sids, fc.nat(1000), fc.boolean(), async (list, seed, weighted) => {
      const policy = new PolicyTable(NUM_CODES, seed);
      const trie = trieOf(list);
      const random = new SeededRandom(seed);
      const drawn = (n: number): Float32Array => Float32Array.from({ length: n }, () => 2 * random.normal());
      const weights = [trie.codes1, trie.codes2, trie.codes3].map(({ length }) => drawn(length));
      const normalizer = weighted ? (weights as unknown as NodeWeights) : 'trie';
      const search = (width: number) =>
        beamSearch(trie, policy.decoding(), width, NO_EXCLUSION, normalizer).then(candidatesOf);
      const found = await search(6 * 5 * 7);
      assert.equal(found.length, list.length);
      const total = found.reduce((sum, { score }) => sum + Math.exp(score), 0);
      assert.ok(Math.abs(total - 1) < 1e-5, `${total}`);
      const weightOf = (s: { c1: number; c2: number; c3: number }): number =>
        Math.exp(policy.row([s.c1, s.c2])[s.c3]! + (weighted ? weights[2]![leafOf(trie, packSid(s))]! : 0));
      for (const candidate of found) {
        const siblings = found.filter((s) => s.c1 === candidate.c1 && s.c2 === candidate.c2);
        const among = (of: (s: typeof candidate) => number): number =>
          of(candidate) / siblings.reduce((sum, s) => sum + of(s), 0);
        assert.ok(Math.abs(among(({ score }) => Math.exp(score)) - among(weightOf)) < 1e-5);
        // what a rollout hands on is the policy's own, whatever the trie holds
        const { c1, c2, c3 } = candidate;
        const own = [policy.row([])[c1]!, policy.row([c1])[c2]!, policy.row([c1, c2])[c3]!];
        own.forEach((p, level) => {
          assert.ok(Math.abs(candidate.tokenLogProbs[level]! - p) < 1e-5);
        });
      }
      for (let i = 1; i < found.length; i++) assert.ok(found[i - 1]!.score >= found[i]!.score);
      const few = await search(3);
      assert.ok(few.every(({ score }) => Number.isFinite(score)) && few.length === Math.min(3, list.length));
    }),
  );
});

test('a narrow beam gives only existing SIDs, at most its width, best first', async () => {
  await fc.assert(
    fc.asyncProperty(sids, fc.nat(1000), fc.integer({ min: 1, max: 8 }), async (list, seed, beamWidth) => {
      const policy = new PolicyTable(NUM_CODES, seed);
      const trie = trieOf(list);
      const found = candidatesOf(await beamSearch(trie, policy.decoding(), beamWidth));
      assert.ok(found.length >= 1 && found.length <= beamWidth);
      for (const c of found) assert.ok(leafOf(trie, c.packed) >= 0);
      for (let i = 1; i < found.length; i++) assert.ok(found[i - 1]!.score >= found[i]!.score);
      assert.equal(new Set(found.map((c) => c.packed)).size, found.length);
    }),
  );
});

test('excluding SIDs equals searching a trie built without them, at any width', async () => {
  await fc.assert(
    fc.asyncProperty(
      sids,
      fc.array(sid, { maxLength: 60 }),
      fc.nat(1000),
      fc.integer({ min: 1, max: 30 }),
      async (list, gone, seed, beamWidth) => {
        const policy = new PolicyTable(NUM_CODES, seed);
        const excluded = new Set([...gone, ...list.slice(0, list.length >> 1)].map(packSid));
        const trie = trieOf(list);
        const found = await beamSearch(trie, policy.decoding(), beamWidth, excludeSids(trie, excluded));
        const without = partOfTrie(
          trie,
          trie.packed.filter((packed) => !excluded.has(packed)),
        );
        assert.deepEqual(found, await beamSearch(without, policy.decoding(), beamWidth));
      },
    ),
  );
});

test('beam search at full width equals brute force where children are many and codes few: ties, deep and flat tries', async () => {
  const flat: NumCodes = [1, 3, 40];
  const shape = fc.constantFrom<NumCodes>(flat, [40, 1, 3], [3, 40, 1], [1, 1, 1]);
  await fc.assert(
    fc.asyncProperty(shape, fc.nat(1000), fc.nat(100), async (numCodes, seed, percent) => {
      // log-probabilities rounded to halves: many SIDs have the very same score
      const policy = new PolicyTable(numCodes, seed, 2);
      const random = new SeededRandom(seed);
      const every = new Set<number>([packSid({ c1: 0, c2: 0, c3: 0 })]);
      for (let c1 = 0; c1 < numCodes[0]; c1++)
        for (let c2 = 0; c2 < numCodes[1]; c2++)
          for (let c3 = 0; c3 < numCodes[2]; c3++)
            if (random.int(100) <= percent) every.add(packSid({ c1, c2, c3 }));
      const trie = buildTrie(numCodes, mergeSids(new Float64Array(0), every, new Set()));
      const found = await beamSearch(trie, policy.decoding(), every.size);
      assert.deepEqual(
        [...found.packed].map((packed, i) => ({ packed, score: found.scores[i] })),
        bruteForce(policy, trie.packed),
      );
    }),
    { numRuns: 60 },
  );
});

test('an unconstrained beam is a constrained one over every SID of the codebook', async () => {
  const policy = new PolicyTable(NUM_CODES, 5);
  const every: { c1: number; c2: number; c3: number }[] = [];
  for (let c1 = 0; c1 < 6; c1++)
    for (let c2 = 0; c2 < 5; c2++) for (let c3 = 0; c3 < 7; c3++) every.push({ c1, c2, c3 });
  for (const beamWidth of [1, 4, 300])
    assert.deepEqual(
      await unconstrainedBeam(NUM_CODES, policy.decoding(), beamWidth),
      await beamSearch(trieOf(every), policy.decoding(), beamWidth),
    );
});

test('an empty trie gives nothing; a beam of no width and NaN scores are errors', async () => {
  const policy = new PolicyTable(NUM_CODES, 1);
  assert.equal((await beamSearch(emptyTrie(NUM_CODES), policy.decoding(), 4)).size, 0);
  await assert.rejects(
    beamSearch(trieOf([{ c1: 0, c2: 0, c3: 0 }]), policy.decoding(), 0),
    /beamWidth must be a positive/,
  );
  await assert.rejects(
    beamSearch(
      trieOf([{ c1: 0, c2: 0, c3: 0 }]),
      {
        ...policy.decoding(),
        first: async () => new Float32Array(6).fill(Number.NaN),
      },
      4,
    ),
    /NaN/,
  );
});

test('TopK keeps what sorting would keep', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -20, max: 20 }), { maxLength: 3000 }),
      fc.integer({ min: 1, max: 1500 }),
      (scores, k) => {
        const top = new TopK(k);
        for (const [node, score] of scores.entries()) top.offer(score, node, node);
        const ranked = top.ranked();
        assert.deepEqual([...ranked.rows], [...ranked.nodes]);
        assert.deepEqual(
          Array.from({ length: ranked.size }, (_, i) => [ranked.scores[i], ranked.nodes[i]]),
          scores
            .map((score, node) => [score, node] as const)
            .sort((a, b) => b[0] - a[0] || a[1] - b[1])
            .slice(0, k),
        );
      },
    ),
  );
});
