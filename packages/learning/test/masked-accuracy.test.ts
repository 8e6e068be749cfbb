import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sidLayout } from '@onemall/features';
import { BatchError, loadPolicy, type RetrievalSample, type SidChildren } from '../src/index.ts';
import { randomGroup, randomSamples, randomSource, SCENARIOS } from './synthetic.ts';
import { create, H } from './trainers.ts';

const numCodes = { product_card: [8, 10, 9], short_video: [6, 8, 12], live_stream: [8, 8, 4] } as const;
const layout = sidLayout(SCENARIOS, numCodes);
const createOn = (maskedAccuracy: boolean, normalizer: 'codes' | 'trie' = 'codes') =>
  create({
    ...{ numCodes, maskedAccuracy, normalizer },
    optimizer: { warmupSteps: 5, learningRate: 1e-2 },
    rl: { form: 'grpo', maxGroups: 1, candidatesPerGroup: 4 },
  });

const random = randomSource(31);
const some = (count: number) =>
  Int32Array.from(Array.from({ length: count }, (_, code) => code).filter(() => random.next() < 0.35));
/** About every third code of each level, the first ones by scenario; the target's own only by chance. */
const firstCodes = SCENARIOS.map((scenario) => some(numCodes[scenario][0]));
const someChildren = (scenario: keyof typeof numCodes): SidChildren => {
  const [, b, c] = numCodes[scenario];
  return [{ codes: firstCodes[SCENARIOS.indexOf(scenario)]! }, { codes: some(b) }, { codes: some(c) }];
};
const batch = (): RetrievalSample[] =>
  randomSamples(random, 14, H, layout).map((sample, i) =>
    i % 7 === 3
      ? sample
      : { ...sample, children: someChildren(sample.target.scenario as keyof typeof numCodes) },
  );

test('masked hits are those of the published policy among the children and the target, and change no weight', async () => {
  const [trainer, plain] = [await createOn(true), await createOn(false)];
  let told = 0;
  let same = 0;
  for (let step = 0; step < 60; step++) {
    const samples = batch();
    const groups = step % 10 === 4 ? [randomGroup(random, H, 4, layout)] : [];
    const compared = step % 10 >= 4 && step % 10 <= 5 && step > 30;
    const files = compared
      ? await trainer.exportPolicy({ policyVersion: 'p', codebookVersions: {}, beamWidths: [8] })
      : null;
    const { byScenario, loss } = await trainer.step({ samples, groups });
    const expected = await plain.step({ samples, groups });
    assert.equal(loss.total, expected.loss.total);
    for (const figures of Object.values(expected.byScenario)) {
      assert.equal(figures.maskedSamples, 0);
      assert.deepEqual(figures.maskedHits, [0, 0, 0]);
    }
    if (!files) continue;
    const policy = await loadPolicy(files);
    const counted: Record<string, { samples: number; hits: [number, number, number] }> = {};
    for (const { request, target, children } of samples) {
      if (!children) continue;
      counted[target.scenario] ??= { samples: 0, hits: [0, 0, 0] };
      const own = counted[target.scenario]!;
      own.samples++;
      const codes = [target.c1, target.c2, target.c3] as const;
      const context = await policy.encode(request);
      for (const level of [0, 1, 2] as const) {
        const scores = await policy.decode(context, level, Int32Array.from(codes.slice(0, level)), 1);
        const best = [...children[level].codes, codes[level]].reduce((a, b) =>
          scores[b]! > scores[a]! ? b : a,
        );
        const hit = best === codes[level];
        if (hit) own.hits[level]++;
        told++;
        if (hit) same++;
      }
    }
    await policy.close();
    for (const [scenario, figures] of Object.entries(byScenario)) {
      const own = counted[scenario] ?? { samples: 0, hits: [0, 0, 0] };
      assert.equal(figures.maskedSamples, own.samples, scenario);
      assert.deepEqual(figures.maskedHits, own.hits, scenario);
      // fewer codes to be better than; two samples brought none
      for (const level of [0, 1, 2]) assert.ok(figures.hits[level]! <= figures.maskedHits[level]! + 2);
    }
  }
  // both kinds came up
  assert.ok(same > 0.1 * told && same < 0.9 * told, `${same} hits of ${told}`);
  assert.deepEqual(await trainer.state(), await plain.state());
});

test('a sample with more children than a list holds is not counted, and is trained as any other', async () => {
  const wide = { product_card: [4, 600, 4] } as const;
  const [trainer, plain] = await Promise.all(
    [true, false].map((maskedAccuracy) =>
      create({ scenarios: ['product_card'], numCodes: wide, maskedAccuracy }),
    ),
  );
  const every = (count: number) => ({ codes: Int32Array.from({ length: count }, (_, code) => code) });
  const samples = randomSamples(random, 4, H, sidLayout(['product_card'], wide)).map((sample, i) => ({
    ...sample,
    children: [every(4), every(i === 0 ? 513 : 512), every(4)] as const,
  }));
  const { byScenario, loss } = await trainer!.step({ samples });
  assert.equal(byScenario.product_card!.samples, 4);
  assert.equal(byScenario.product_card!.maskedSamples, 3);
  assert.deepEqual(loss, (await plain!.step({ samples })).loss);
  // and what the step has left in the weights is the same
  assert.deepEqual((await trainer!.step({ samples })).loss, (await plain!.step({ samples })).loss);
});

for (const [reads, masked, normalizer] of [
  ['the masked figures', true, 'codes'],
  ['the softmax', false, 'trie'],
] as const)
  test(`children outside the codes are refused by ${reads}`, () => checkRefused(masked, normalizer));

async function checkRefused(masked: boolean, normalizer: 'codes' | 'trie'): Promise<void> {
  const trainer = await createOn(masked, normalizer);
  const [sample] = randomSamples(random, 1, H, layout);
  const refused = (codes: number[], why: RegExp) =>
    assert.rejects(
      trainer.step({
        samples: [
          {
            ...sample!,
            children: [
              { codes: Int32Array.of(0) },
              { codes: Int32Array.of(0) },
              { codes: Int32Array.from(codes) },
            ],
          },
        ],
      }),
      (e: unknown) => e instanceof BatchError && why.test(e.message),
    );
  const [, , count] = layout.numCodes[sample!.target.scenario]!;
  await refused([count], /has code \d+, expected 0 to/);
  await refused([-1], /has code -1/);
  await refused(Array(count + 1).fill(0), /children at level 3/);
}
