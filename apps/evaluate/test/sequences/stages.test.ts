import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededSource } from '@onemall/quantization';
import fc from 'fast-check';
import {
  type Beam,
  extendBeam,
  itemsOf,
  joined,
  logShares,
  startBeam,
} from '../../src/sequences/stages/beam-search.ts';
import { bucketed, questions, trainingSequences } from '../../src/sequences/stages/leave-one-out.ts';
import { packEpoch } from '../../src/sequences/stages/pack-sequences.ts';
import { rankInList, rankMetrics, rankOfTarget } from '../../src/sequences/stages/rank-metrics.ts';
import { SidTrie } from '../../src/sequences/stages/sid-trie.ts';
import { drawTarget, emptyTeacher, teach } from '../../src/sequences/stages/soft-targets.ts';

const sequencesOf = (most: number, items = 30) =>
  fc.array(
    fc
      .array(fc.integer({ min: 1, max: items }), { minLength: 1, maxLength: 20 })
      .map((s) => Int32Array.from(s)),
    { minLength: 1, maxLength: most },
  );

test('the last item is asked for, the one before validates, and neither is trained on', () => {
  const sequences = [Int32Array.of(1, 2, 3, 4), Int32Array.of(5, 6), Int32Array.of(7, 8, 9)];
  const plain = (split: 'test' | 'validation') =>
    questions(sequences, split).map(({ user, history, target }) => [user, [...history], target]);
  assert.deepEqual(plain('test'), [
    [0, [1, 2, 3], 4],
    [2, [7, 8], 9],
  ]);
  assert.deepEqual(plain('validation'), [
    [0, [1, 2], 3],
    [2, [7], 8],
  ]);
  assert.deepEqual(
    trainingSequences(sequences).map((s) => [...s]),
    [[1, 2], [5, 6], [7]],
  );
});

test('each question is in one batch that holds it', () => {
  const buckets = [
    { length: 2, rows: 3 },
    { length: 6, rows: 2 },
  ];
  fc.assert(
    fc.property(sequencesOf(12), (sequences) => {
      const asked = questions(sequences, 'test');
      const batches = bucketed(asked, buckets);
      assert.deepEqual(
        batches.flatMap((b) => b.questions.map((q) => q.user)).sort((a, b) => a - b),
        asked.map((q) => q.user),
      );
      for (const { bucket, questions: list } of batches) {
        assert.ok(list.length <= bucket.rows);
        for (const { history } of list) assert.ok(history.length <= bucket.length || bucket === buckets[1]);
      }
    }),
  );
});

test('an epoch holds every position of every sequence once, each with what came before it in its segment', () => {
  const shape = { rows: 2, length: 8 };
  fc.assert(
    fc.property(sequencesOf(40), fc.integer({ min: 0, max: 1000 }), (sequences, seed) => {
      const found: string[] = [];
      for (const batch of packEpoch(sequences, shape, seededSource(seed))) {
        let weights = 0;
        for (let i = 0; i < shape.rows * shape.length; i++) {
          weights += batch.weights[i]!;
          const user = batch.users[i]!;
          assert.equal(batch.segments[i]! >= 0, user >= 0);
          if (user < 0) continue;
          const place = batch.targetPlaces[i]!;
          assert.equal(batch.items[i], sequences[user]![place - 1]);
          assert.equal(batch.targets[i], sequences[user]![place]);
          if (batch.positions[i]! > 0) {
            assert.equal(batch.positions[i], batch.positions[i - 1]! + 1);
            assert.equal(batch.segments[i], batch.segments[i - 1]);
            assert.ok(i % shape.length > 0);
          } else if (i % shape.length > 0) assert.notEqual(batch.segments[i], batch.segments[i - 1]);
          found.push(`${user} ${place}`);
        }
        assert.ok(Math.abs(weights - 1) < 1e-5);
      }
      const expected = sequences.flatMap((s, user) =>
        Array.from(s.keys())
          .filter((place) => place >= 1 && place >= s.length - shape.length)
          .map((place) => `${user} ${place}`),
      );
      assert.deepEqual(found.sort(), expected.sort());
    }),
  );
});

test('with last positions only, a sequence is one target', () => {
  const sequences = [Int32Array.of(1, 2, 3), Int32Array.of(4, 5), Int32Array.of(6)];
  const [batch] = packEpoch(sequences, { rows: 1, length: 8 }, seededSource(1), 'last');
  assert.equal(batch!.numTargets, 2);
  const asked = [...batch!.weights.keys()].filter((i) => batch!.weights[i]! > 0);
  assert.deepEqual(asked.map((i) => batch!.targets[i]).sort(), [3, 5]);
});

/** Sorts everything, looks the target up: slow and obvious. */
function bruteForce(scores: readonly number[], target: number, left: (item: number) => boolean): number {
  const order = scores
    .map((score, i) => ({ item: i + 1, score }))
    .filter(({ item }) => item === target || left(item));
  order.sort((a, b) => b.score - a.score || a.item - b.item);
  return order.findIndex(({ item }) => item === target);
}

test('ranks and metrics equal those of sorting all items', () => {
  const cases = fc.record({
    // few different scores, so that many are equal
    scores: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 12, maxLength: 40 }),
    target: fc.integer({ min: 1, max: 12 }),
    history: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 12 }),
  });
  fc.assert(
    fc.property(fc.array(cases, { minLength: 1, maxLength: 20 }), (list) => {
      const ranks = { in: new Int32Array(list.length), out: new Int32Array(list.length) };
      const slow = { in: [] as number[], out: [] as number[] };
      list.forEach(({ scores, target, history }, i) => {
        const padded = Float32Array.of(99, ...scores, 99);
        const rank = rankOfTarget(padded, 1, scores.length, target, Int32Array.from(history));
        slow.in.push(bruteForce(scores, target, () => true));
        slow.out.push(bruteForce(scores, target, (item) => !history.includes(item)));
        assert.deepEqual(rank, { in: slow.in.at(-1), out: slow.out.at(-1) });
        ranks.in[i] = rank.in;
        ranks.out[i] = rank.out;
        const sorted = scores
          .map((score, k) => ({ item: k + 1, score }))
          .sort((a, b) => b.score - a.score || a.item - b.item)
          .map(({ item }) => item);
        assert.deepEqual(rankInList(sorted, target, Int32Array.from(history)), rank);
      });
      for (const protocol of ['in', 'out'] as const) {
        const metrics = rankMetrics(ranks[protocol]);
        for (const k of [5, 10] as const) {
          // the gain of a list of k places with one relevant item; the best such list has gain 1
          const gains = slow[protocol].map((r) =>
            Array.from({ length: k }, (_, p) => (p === r ? 1 : 0) / Math.log2(p + 2)).reduce(
              (a, b) => a + b,
              0,
            ),
          );
          const mean = gains.reduce((a, b) => a + b, 0) / list.length;
          assert.ok(Math.abs(metrics[`N@${k}`] - mean) < 1e-12);
          assert.equal(metrics[`R@${k}`], slow[protocol].filter((r) => r < k).length / list.length);
        }
      }
    }),
    { numRuns: 60 },
  );
});

const sids = fc.array(fc.tuple(fc.nat(3), fc.nat(2), fc.nat(4)), { minLength: 1, maxLength: 40 });

test('a wide enough beam is an exhaustive search, with the softmax over the children that exist or over all codes', () => {
  const numCodes = [4, 3, 5];
  fc.assert(
    fc.property(sids, fc.integer({ min: 0, max: 999 }), fc.boolean(), (list, seed, normalized) => {
      const trie = new SidTrie(Int32Array.from(list.flat()), numCodes);
      // a score for every prefix and code, as a model would give
      const scoreOf = (prefix: readonly number[], code: number): number =>
        seededSource(seed * 7919 + [...prefix, code].reduce((h, c) => h * 31 + c + 1, 7)).next() * 4;
      const logProb = (sid: readonly number[]): number =>
        sid.reduce((sum, code, level) => {
          const prefix = sid.slice(0, level);
          const all = Array.from({ length: numCodes[level]! }, (_, c) => c);
          const own = normalized
            ? all
            : all.filter((c) => list.some((s) => [...prefix, c].every((v, l) => s[l] === v)));
          const total = own.reduce((t, c) => t + Math.exp(scoreOf(prefix, c)), 0);
          return sum + scoreOf(prefix, code) - Math.log(total);
        }, 0);
      let beam: Beam = startBeam();
      for (let level = 0; level < 3; level++) {
        const count = numCodes[level]!;
        const scores = new Float32Array(beam.nodes.length * count);
        beam.nodes.forEach((_, b) => {
          const prefix = beam.codes.map((codes) => codes[b]!);
          const row = Array.from({ length: count }, (_, c) => scoreOf(prefix, c));
          const norm = normalized ? Math.log(row.reduce((t, v) => t + Math.exp(v), 0)) : 0;
          scores.set(
            row.map((v) => v - norm),
            b * count,
          );
        });
        beam = extendBeam(beam, trie, { scores, begin: 0, normalized, width: 1000 });
      }
      const counts = Float64Array.from(list, (_, i) => 1 + (i % 3));
      const { items, scores } = itemsOf(beam, trie, logShares(trie, counts));
      const share = (i: number): number =>
        counts[i]! / list.reduce((t, s, k) => (String(s) === String(list[i]) ? t + counts[k]! : t), 0);
      const expected = list.map((sid, i) => logProb(sid) + Math.log(share(i)));
      assert.equal(items.length, list.length);
      items.forEach((item, k) => {
        assert.ok(Math.abs(scores[k]! - expected[item - 1]!) < 1e-4);
        if (k > 0) assert.ok(scores[k]! <= scores[k - 1]!);
      });
      const total = Array.from(scores, Math.exp).reduce((a, b) => a + b, 0);
      if (!normalized) assert.ok(Math.abs(total - 1) < 1e-4, `probabilities of all items add up to ${total}`);
    }),
    { numRuns: 40 },
  );
});

test('advised items join the candidates below the worst of them', () => {
  const candidates = { items: Int32Array.of(4, 2), scores: Float64Array.of(-1, -3) };
  const logProbs = new Map([
    [7, -1],
    [2, -1.5],
    [4, -9],
  ]);
  const list = (weight: number) => {
    const { items, scores } = joined(candidates, { best: [7, 2], logProbs }, weight);
    return Array.from(items, (item, i) => [item, scores[i]]);
  };
  assert.deepEqual(list(0), [
    [4, -1],
    [2, -3],
    [7, -3.5],
  ]);
  assert.deepEqual(list(2), [
    [7, -5.5],
    [2, -6],
    [4, -19],
  ]);
});

test('masks hold the codes that continue the prefix of the target', () => {
  const list = [
    [0, 1, 2],
    [0, 1, 0],
    [3, 0, 4],
    [0, 2, 2],
  ];
  const trie = new SidTrie(Int32Array.from(list.flat()), [4, 3, 5]);
  const masks = trie.masks(Int32Array.of(2, 0));
  assert.deepEqual([...masks['mask.level1']!], [1, 0, 0, 1, 1, 1, 1, 1]);
  assert.deepEqual([...masks['mask.level2']!], [0, 1, 1, 1, 1, 1]);
  assert.deepEqual([...masks['mask.level3']!], [1, 0, 1, 0, 0, 1, 1, 1, 1, 1]);
  assert.throws(() => new SidTrie(Int32Array.of(0, 3, 0), [4, 3, 5]), /Code 3 of item 1 at level 2/);
});

test('soft targets are drawn by the probabilities of the teacher', () => {
  const teacher = emptyTeacher([Int32Array.of(1, 2), Int32Array.of(3, 4, 5)], 2);
  const place = teacher.begin[1]! + 1;
  teach(teacher, place, Float32Array.of(9, 0.1, 0.5, 0.3, 0.1), 1, 4);
  assert.deepEqual([...teacher.items.subarray(place * 2, place * 2 + 2)], [2, 3]);
  const random = seededSource(3);
  const drawn = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < 4000; i++) drawn[drawTarget(teacher, place, random)]!++;
  // .5 for item 2; item 3 takes its .3 and what lies behind it
  assert.ok(Math.abs(drawn[2]! / 4000 - 0.5) < 0.04);
  assert.equal(drawn[2]! + drawn[3]!, 4000);
});
