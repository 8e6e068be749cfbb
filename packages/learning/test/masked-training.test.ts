/** Training with the softmax over the valid children of a node, and the policy that comes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RequestTensors } from '@onemall/features';
import {
  BatchError,
  type LevelCodes,
  loadPolicy,
  type RetrievalExport,
  type RetrievalSample,
  type SidChildren,
} from '../src/index.ts';
import { NUM_CODES, randomGroup, randomSamples, randomSource } from './synthetic.ts';
import { create, H } from './trainers.ts';

test('log-probabilities are those of the published policy among the children', async () => {
  const trainer = await create({
    normalizer: 'trie',
    maskedAccuracy: true,
    rl: { form: 'grpo', maxGroups: 1, candidatesPerGroup: 4 },
  });
  const random = randomSource(12);
  const some = (count: number, own: number): LevelCodes => {
    const codes = Int32Array.from(new Set([own, random.int(count), random.int(count), random.int(count)]));
    return { codes, logWeights: Float32Array.from(codes, () => 4 * random.next()) };
  };
  const childrenOf = (scenario: string, codes: readonly number[]): SidChildren => {
    const [a, b, c] = codes.map((code, level) => some(NUM_CODES[scenario]![level as 0 | 1 | 2], code));
    return [a!, b!, c!];
  };
  const withChildren = (samples: RetrievalSample[]): RetrievalSample[] =>
    samples.map((s) => {
      const { scenario, c1, c2, c3 } = s.target;
      return { ...s, children: childrenOf(scenario, [c1, c2, c3]) };
    });
  for (let i = 0; i < 3; i++) await trainer.step({ samples: withChildren(randomSamples(random, 16, H)) });
  const publish = (options: Partial<RetrievalExport>) =>
    trainer.exportPolicy({ policyVersion: 'p', codebookVersions: {}, beamWidths: [8], ...options });
  const policy = await loadPolicy(await publish({ trieVersion: 'abc' }));
  assert.equal(policy.manifest.normalizer, 'trie');
  assert.equal(policy.manifest.trieVersion, 'abc');
  await assert.rejects(publish({ trieVersion: 'abc', normalizer: 'codes' }), /cannot be published with/);
  await assert.rejects(publish({}), /with its trieVersion/);
  const among = async (request: RequestTensors, codes: readonly number[], children: SidChildren) => {
    const context = await policy.encode(request);
    const found: number[] = [];
    for (const level of [0, 1, 2] as const) {
      const all = await policy.decode(context, level, Int32Array.from(codes.slice(0, level)), 1);
      const { codes: siblings, logWeights } = children[level];
      const scores = Array.from(siblings, (code, i) => all[code]! + logWeights![i]!);
      const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      found.push(scores[siblings.indexOf(codes[level]!)]! - Math.log(total));
    }
    return found;
  };
  const samples = withChildren(randomSamples(random, 16, H));
  const group = randomGroup(random, H, 4);
  const candidates = await Promise.all(
    group.candidates.map(async (c) => {
      const children = childrenOf(group.request.scenario, c.codes);
      const refLogProb = (await among(group.request, c.codes, children)).reduce((a, b) => a + b, 0);
      return { ...c, refLogProb, children };
    }),
  );
  const expected = await Promise.all(
    samples.map(({ request, target: { c1, c2, c3 }, children }) => among(request, [c1, c2, c3], children!)),
  );
  // accuracy is over all codes and, beside it, among the children with their weights
  const best: number[] = [];
  let bestChildren = 0;
  for (const { request, target, children } of samples) {
    const context = await policy.encode(request);
    const codes = [target.c1, target.c2, target.c3] as const;
    for (const level of [0, 1, 2] as const) {
      const all = await policy.decode(context, level, Int32Array.from(codes.slice(0, level)), 1);
      best.push(all.indexOf(Math.max(...all)));
      const { codes: siblings, logWeights } = children![level];
      const scores = Array.from(siblings, (code, i) => all[code]! + logWeights![i]!);
      if (siblings[scores.indexOf(Math.max(...scores))] === codes[level]) bestChildren++;
    }
  }
  assert.ok(bestChildren > 4 && bestChildren < 44, `${bestChildren}`);
  await policy.close();
  const { tokenLogProbs, predictions } = await trainer.evaluate(samples);
  assert.deepEqual([...predictions], best);
  expected.flat().forEach((p, i) => {
    assert.ok(Math.abs(p - tokenLogProbs[i]!) < 1e-4, `${p} ${tokenLogProbs[i]}`);
  });
  const { rl, byScenario } = await trainer.step({ samples, groups: [{ ...group, candidates }] });
  assert.ok(rl!.maxAbsLogRatio < 1e-3, `|log rho| ${rl!.maxAbsLogRatio}`);
  const figures = Object.values(byScenario);
  const total = (of: (f: (typeof figures)[number]) => readonly number[]) =>
    figures.flatMap(of).reduce((a, b) => a + b, 0);
  const isTarget = (code: number, i: number): boolean => {
    const { c1, c2, c3 } = samples[Math.floor(i / 3)]!.target;
    return code === [c1, c2, c3][i % 3];
  };
  assert.equal(
    total((f) => f.hits),
    best.filter(isTarget).length,
  );
  assert.equal(
    total((f) => [f.maskedSamples]),
    16,
  );
  assert.equal(
    total((f) => f.maskedHits),
    bestChildren,
  );
  for (const { outsideTrie } of figures) assert.equal(outsideTrie, 0);

  const [bare] = randomSamples(random, 1, H) as [RetrievalSample];
  await assert.rejects(
    trainer.step({ samples: [bare] }),
    (e: unknown) => e instanceof BatchError && /needs `children`/.test(e.message),
  );
  const odd = { codes: Int32Array.of(1, 2), logWeights: Float32Array.of(1) };
  await assert.rejects(
    trainer.step({ samples: [{ ...bare, children: [odd, odd, odd] }] }),
    (e: unknown) => e instanceof BatchError && /2 children and 1 weights/.test(e.message),
  );
});

test('a target outside its trie is added to the children and counted, by scenario', async () => {
  const trainer = await create({ normalizer: 'trie' });
  const samples = randomSamples(randomSource(13), 12, H).map((sample, i): RetrievalSample => {
    const { c1, c2, c3 } = sample.target;
    const of = (...codes: number[]) => ({ codes: Int32Array.from(codes) });
    // the first one's last code has gone, the second one's whole path
    const children: SidChildren =
      i === 0
        ? [of(c1), of(c2), of(c3 === 0 ? 1 : 0)]
        : i === 1
          ? [of(c1 === 0 ? 1 : 0), of(), of()]
          : [of(c1), of(c2), of(c3)];
    return { ...sample, children };
  });
  const expected: Record<string, number> = {};
  samples.forEach(({ target }, i) => {
    expected[target.scenario] = (expected[target.scenario] ?? 0) + Number(i < 2);
  });
  const { loss, byScenario, tokenLogProbs } = await trainer.step({ samples });
  assert.ok(Number.isFinite(loss.total));
  const counted = Object.entries(byScenario).map(([name, figures]) => [name, figures.outsideTrie]);
  assert.deepEqual(Object.fromEntries(counted), expected);
  // alone in its node the added code is sure; beside another it is not, and no -1e9
  tokenLogProbs.forEach((p, at) => {
    const hasSibling = at === 2 || at === 3;
    assert.ok(hasSibling ? p < -0.01 && p > -10 : Math.abs(p) < 1e-5, `value ${at}: ${p}`);
  });
});
