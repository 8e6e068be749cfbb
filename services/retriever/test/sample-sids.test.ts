/** Gumbel top-k against the exact distribution of drawing without replacement. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import { buildTrie, type NumCodes, packSid, unpackSid } from '../src/stages/build-trie.ts';
import { excludeSids } from '../src/stages/exclude-sids.ts';
import { sampleSids } from '../src/stages/sample-sids.ts';
import { PolicyTable } from './policy-table.ts';

const NUM_CODES: NumCodes = [4, 4, 4];
const policy = new PolicyTable(NUM_CODES, 3);
const SIDS = [
  [0, 1, 2],
  [0, 1, 3],
  [0, 2, 0],
  [1, 0, 0],
  [2, 2, 2],
  [2, 3, 1],
].map(([c1, c2, c3]) => packSid({ c1: c1!, c2: c2!, c3: c3! }));
const trie = buildTrie(NUM_CODES, Float64Array.from(SIDS).sort());

/** q: the policy's probabilities scaled at each node to the children that exist; written out without the search. */
function exactDistribution(sids: readonly number[]): Map<number, number> {
  const codes = sids.map((sid) => Object.values(unpackSid(sid)));
  const share = (prefix: number[], code: number): number => {
    const siblings = new Set(
      codes.filter((c) => prefix.every((p, i) => c[i] === p)).map((c) => c[prefix.length]!),
    );
    const row = policy.row(prefix);
    const total = [...siblings].reduce((sum, s) => sum + Math.exp(row[s]!), 0);
    return Math.exp(row[code]!) / total;
  };
  return new Map(
    sids.map((sid, i) => {
      const [a, b, c] = codes[i] as [number, number, number];
      return [sid, share([], a) * share([a], b) * share([a, b], c)];
    }),
  );
}

/** Pearson's statistic of counted against expected pairs (first, second drawn). */
async function chiSquare(
  sids: readonly number[],
  excluded: readonly number[],
  draws: number,
): Promise<number> {
  const q = exactDistribution(sids);
  assert.ok(Math.abs([...q.values()].reduce((a, b) => a + b, 0) - 1) < 1e-9);
  const counts = new Map<string, number>();
  const exclusion = excludeSids(trie, excluded);
  for (let seed = 0; seed < draws; seed++) {
    const { packed } = await sampleSids(trie, policy.decoding(), 2, new SeededRandom(seed), exclusion);
    const key = `${packed[0]},${packed[1]}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  let statistic = 0;
  for (const first of sids)
    for (const second of sids) {
      if (first === second) continue;
      const p = (q.get(first)! * q.get(second)!) / (1 - q.get(first)!);
      const count = counts.get(`${first},${second}`) ?? 0;
      statistic += (count - draws * p) ** 2 / (draws * p);
      counts.delete(`${first},${second}`);
    }
  assert.equal(counts.size, 0, 'nothing but the pairs of the trie was drawn');
  return statistic;
}

test('the first two SIDs come in the order of drawing without replacement', async () => {
  // 29 degrees of freedom: 58.3 is exceeded once in a thousand
  const statistic = await chiSquare(SIDS, [], 20_000);
  assert.ok(statistic < 58.3, `chi square ${statistic}`);
});

test('excluded SIDs are never drawn and the rest keeps its proportions', async () => {
  // 11 degrees of freedom: 31.3 is exceeded once in a thousand
  const statistic = await chiSquare([SIDS[0]!, SIDS[2]!, SIDS[3]!, SIDS[5]!], [SIDS[1]!, SIDS[4]!], 10_000);
  assert.ok(statistic < 31.3, `chi square ${statistic}`);
});

test('the same seed gives the same draw; as many as exist gives all; log-probabilities are those of the policy', async () => {
  const draw = (seed: number, count: number) =>
    sampleSids(trie, policy.decoding(), count, new SeededRandom(seed));
  assert.deepEqual(await draw(7, 3), await draw(7, 3));
  const orders = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    const all = await draw(seed, 50);
    assert.deepEqual([...all.packed].sort(), [...SIDS].sort());
    orders.add([...all.packed].join());
    for (let i = 0; i < all.size; i++) {
      const expected = policy.tokenLogProbs(unpackSid(all.packed[i]!));
      assert.deepEqual([...all.tokenLogProbs.subarray(3 * i, 3 * i + 3)], expected);
      assert.ok(Math.abs(all.scores[i]! - expected.reduce((a, b) => a + b)) < 1e-9);
    }
  }
  assert.ok(orders.size > 5, `${orders.size} orders`);
});
