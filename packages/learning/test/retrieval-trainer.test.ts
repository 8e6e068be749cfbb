import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hashFeature, type RequestTensors, sidLayout } from '@onemall/features';
import {
  BatchError,
  DivergedError,
  loadPolicy,
  type RetrievalTrainer,
  StateError,
  selectDpoCandidates,
  selectGrpoCandidates,
} from '../src/index.ts';
import { readLengthOf, readLengths } from '../src/models/onemall-feeds.ts';
import { learningRateAt, resolveOptimizer } from '../src/training-options.ts';
import { NUM_CODES, randomGroup, randomSamples, randomSource, SCENARIOS } from './synthetic.ts';
import { create, H } from './trainers.ts';

/** One trainer for the tests that do without their own: starting one takes half a second. */
const shared = await create({ rl: { form: 'grpo', maxGroups: 3, candidatesPerGroup: 6 } });
const untrained = await shared.state();
async function fresh(): Promise<RetrievalTrainer> {
  await shared.restore(untrained);
  return shared;
}
/** The request for a model that reads more events. */
function padded(request: RequestTensors, length: number): RequestTensors {
  const longer = ({ codes, ages, scenarios }: RequestTensors['behaviours']['click']) => {
    const wide = {
      codes: new Int32Array(length * 3).fill(-1),
      ages: new Int32Array(length),
      scenarios: new Int32Array(length),
    };
    wide.codes.set(codes);
    wide.ages.set(ages);
    wide.scenarios.set(scenarios);
    return wide;
  };
  const { exposure, click, buy } = request.behaviours;
  return { ...request, behaviours: { exposure: longer(exposure), click: longer(click), buy: longer(buy) } };
}

describe('a step', () => {
  test('learns what can be learnt, and reports predictions made before the update', async () => {
    const numCodes = { product_card: [8, 8, 8], short_video: [8, 8, 8], live_stream: [8, 8, 8] } as const;
    const layout = sidLayout(SCENARIOS, numCodes);
    const trainer = await create({ numCodes, optimizer: { warmupSteps: 10, learningRate: 1e-2 } });
    const random = randomSource(2);
    const losses: number[] = [];
    let hits = 0;
    for (let i = 0; i < 140; i++) {
      const samples = randomSamples(random, 16, H, layout);
      const before = i === 7 ? await trainer.evaluate(samples) : undefined;
      const result = await trainer.step({ samples });
      losses.push(result.loss.ntp);
      if (before) {
        assert.equal(result.experts.overflow, 0);
        result.tokenLogProbs.forEach((p, k) => {
          assert.ok(Math.abs(p - before.tokenLogProbs[k]!) < 1e-5);
        });
        const codes = samples.flatMap(({ target: { c1, c2, c3 } }) => [c1, c2, c3]);
        const foreseen = codes.filter((code, k) => code === before.predictions[k]).length;
        const told = Object.values(result.byScenario).flatMap((own) => own.hits);
        assert.equal(
          told.reduce((a, b) => a + b),
          foreseen,
        );
      }
      if (i >= 130) for (const own of Object.values(result.byScenario)) hits += own.hits[0];
      const counted = Object.values(result.byScenario).reduce((n, own) => n + own.samples, 0);
      assert.equal(counted, 16);
    }
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const [first, last] = [mean(losses.slice(0, 10)), mean(losses.slice(-10))];
    // guessing costs 3 log 8 = 6.2 nats
    assert.ok(first > 5.5, `first ${first}`);
    assert.ok(last < first - 2.5, `first ${first}, last ${last}`);
    assert.ok(hits > 60, `${hits} of 160 first codes right`);
  });

  test('a batch of short histories is computed by a shorter graph with the same result', async () => {
    const random = randomSource(41);
    const longest = 32;
    const short = randomSamples(random, 15, 8).map((sample) => ({
      ...sample,
      request: padded(sample.request, longest),
    }));
    // long enough for the whole graph, of no weight
    const long = { ...randomSamples(random, 1, longest)[0]!, weight: 0 };
    long.request.behaviours.exposure.codes.fill(3);
    assert.deepEqual(readLengths(longest), [8, 16, 32]);
    assert.deepEqual(readLengths(20), [10, 20]);
    assert.equal(readLengthOf([short[0]!.request], longest), 8);
    assert.equal(readLengthOf([short[0]!.request, long.request], longest), longest);
    const whole = await create({ historyLength: longest });
    const quick = await create({ historyLength: longest });
    const [expected, given] = [
      await whole.step({ samples: [...short, long] }),
      await quick.step({ samples: short }),
    ];
    assert.ok(Math.abs(given.loss.ntp - expected.loss.ntp) < 1e-5);
    assert.ok(Math.abs(given.gradNorm - expected.gradNorm) < 1e-4 * expected.gradNorm);
    assert.ok(Math.abs(given.loss.contrastive - expected.loss.contrastive) < 1e-5);
    given.tokenLogProbs.forEach((p, i) => {
      assert.ok(Math.abs(p - expected.tokenLogProbs[i]!) < 1e-5);
    });
    // weights have gone on together, position and age tables too
    const next = { samples: short };
    const [then, also] = [await whole.step({ samples: [...short, long] }), await quick.step(next)];
    assert.ok(Math.abs(then.loss.ntp - also.loss.ntp) < 1e-3);
  });

  test('a partial batch is the same as a full one with weights of zero', async () => {
    const random = randomSource(3);
    const samples = randomSamples(random, 9, H);
    const spare = randomSamples(random, 7, H).map((s) => ({ ...s, weight: 0 }));
    const one = await (await fresh()).step({ samples });
    const two = await (await fresh()).step({ samples: [...samples, ...spare] });
    assert.ok(Math.abs(one.loss.total - two.loss.total) < 1e-5);
    assert.ok(Math.abs(one.gradNorm - two.gradNorm) < 1e-4 * one.gradNorm);
    assert.equal(one.tokenLogProbs.length, 27);
    assert.equal(two.tokenLogProbs.length, 48);
  });

  test('with the contrast at s3 it trains on all four positions', async () => {
    const { retrievalPresets } = await import('../src/index.ts');
    const trainer = await create({
      preset: { ...retrievalPresets.tiny, contrastAt: 's3', residual: 'layer' },
    });
    const random = randomSource(4);
    const first = await trainer.step({ samples: randomSamples(random, 16, H) });
    let last = first;
    for (let i = 0; i < 40; i++) last = await trainer.step({ samples: randomSamples(random, 16, H) });
    assert.ok(last.loss.contrastive < first.loss.contrastive);
    // four tokens of sixteen samples, two experts each
    assert.equal(
      first.experts.loads[0]!.reduce((a, b) => a + b, 0),
      4 * 16 * 2,
    );
  });

  test('what does not fit is refused by name, and changes nothing', async () => {
    const trainer = await fresh();
    const samples = randomSamples(randomSource(5), 17, H);
    const bad = (pattern: RegExp) => (e: unknown) => e instanceof BatchError && pattern.test(e.message);
    await assert.rejects(trainer.step({ samples }), bad(/at most 16 samples, got 17/));
    await assert.rejects(trainer.step({ samples: [] }), bad(/at least one sample/));
    const [sample] = samples as [(typeof samples)[0]];
    const target = { ...sample.target, c1: 9999 };
    await assert.rejects(trainer.step({ samples: [{ ...sample, target }] }), bad(/Code 9999 of level 1/));
    await assert.rejects(trainer.step({ samples: [{ ...sample, weight: Number.NaN }] }), bad(/got NaN/));
    const longer = randomSamples(randomSource(5), 1, H + 1);
    await assert.rejects(
      trainer.step({ samples: longer }),
      bad(/reads 6 events per behaviour, a request has 7/),
    );
    const group = randomGroup(randomSource(6), H, 4);
    const four = { samples: [sample], groups: [group, group, group, group] };
    await assert.rejects(trainer.step(four), bad(/at most 3 reward groups, got 4/));
    const large = { samples: [sample], groups: [randomGroup(randomSource(6), H, 7)] };
    await assert.rejects(trainer.step(large), bad(/up to 6 candidates, got 7/));
    assert.equal(trainer.steps, 0);
    assert.deepEqual(await trainer.state(), untrained);
  });

  test('a gradient that is not finite is refused and the weights stay', async () => {
    const trainer = await fresh();
    const random = randomSource(7);
    const samples = randomSamples(random, 4, H);
    const before = await trainer.state();
    const group = randomGroup(random, H, 3);
    const candidates = group.candidates.map((c) => ({ ...c, advantage: 3e38 }));
    const groups = [{ ...group, candidates }];
    await assert.rejects(trainer.step({ samples, groups }, { rlWeight: 10 }), DivergedError);
    assert.deepEqual(await trainer.state(), before);
    assert.equal((await trainer.step({ samples })).step, 1);
  });
});

test('the learning rate warms up, stays, or falls by half a cosine where the end is known', () => {
  const constant = resolveOptimizer({ learningRate: 1, warmupSteps: 10 }, 3);
  assert.deepEqual(
    [0, 4, 9, 10, 1e6].map((step) => learningRateAt(step, constant)),
    [0.1, 0.5, 1, 1, 1],
  );
  const falling = resolveOptimizer({ learningRate: 1, warmupSteps: 10, decaySteps: 110 }, 3);
  const rates = [9, 10, 60, 110, 1e6].map((step) => learningRateAt(step, falling));
  [1, 1, 0.525, 0.05, 0.05].forEach((rate, i) => {
    assert.ok(Math.abs(rates[i]! - rate) < 1e-9, `${rates}`);
  });
  assert.throws(
    () => resolveOptimizer({ warmupSteps: 10, decaySteps: 10 }, 3),
    /decaySteps must be .* got 10/,
  );
});

describe('reward groups', () => {
  test('at lag 0 the ratio to the published policy is 1', async () => {
    const trainer = await fresh();
    const random = randomSource(8);
    for (let i = 0; i < 3; i++) await trainer.step({ samples: randomSamples(random, 16, H) });
    const files = await trainer.exportPolicy({ policyVersion: 'p', codebookVersions: {}, beamWidths: [8] });
    const policy = await loadPolicy(files);
    const groups = await Promise.all(
      [5, 4].map(async (count) => {
        const group = randomGroup(random, H, count);
        const context = await policy.encode(group.request);
        const candidates = await Promise.all(
          group.candidates.map(async (candidate) => {
            let refLogProb = 0;
            for (const level of [0, 1, 2] as const) {
              const prefix = Int32Array.from(candidate.codes.slice(0, level));
              const logProbs = await policy.decode(context, level, prefix, 1);
              refLogProb += logProbs[candidate.codes[level]]!;
            }
            return { ...candidate, refLogProb };
          }),
        );
        return { ...group, candidates };
      }),
    );
    await policy.close();
    const { rl, loss } = await trainer.step({ samples: randomSamples(random, 16, H), groups });
    assert.equal(rl!.groups, 2);
    assert.equal(rl!.candidates, 9);
    assert.ok(rl!.maxAbsLogRatio < 1e-3, `|log rho| ${rl!.maxAbsLogRatio}`);
    assert.ok(Math.abs(rl!.meanRatio - 1) < 1e-3);
    assert.ok(Math.abs(rl!.kl) < 1e-6);
    const all = groups.flatMap((g) => g.candidates.map((c) => c.advantage));
    assert.ok(Math.abs(rl!.advantages.mean - all.reduce((a, b) => a + b, 0) / 9) < 1e-9);
    assert.equal(rl!.advantages.maxAbs, Math.max(...all.map(Math.abs)));
    // at ratio 1 the surrogate is -A: sum over groups of the mean over candidates, over fraction x B
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const expected =
      -groups.map((g) => mean(g.candidates.map((c) => c.advantage))).reduce((a, b) => a + b, 0) / (0.02 * 16);
    assert.ok(Math.abs(loss.rl - expected) < 1e-3 * Math.abs(expected) + 1e-3, `${loss.rl} ${expected}`);
    assert.ok(Math.abs(rl!.lossPerGroup - (loss.rl * 0.02 * 16) / 2) < 1e-6);
    assert.ok(Math.abs(loss.total - (0.5 * loss.rl + loss.ntp + loss.contrastive)) < 1e-3);
  });

  for (const form of ['grpo', 'dpo'] as const)
    test(`${form} raises the preferred candidate above the others`, async () => {
      const trainer = form === 'grpo' ? await fresh() : await create({ rl: { form, maxGroups: 1 } });
      const random = randomSource(9);
      const base = randomGroup(random, H, 5);
      const candidates = base.candidates.map((c, i) => ({
        ...c,
        refLogProb: -9.5,
        advantage: i === 0 ? 1 : -1,
      }));
      const groups = [{ ...base, candidates }];
      const gap = (logProbs: Float32Array) => logProbs[0]! - Math.max(...logProbs.subarray(1));
      const samples = randomSamples(random, 16, H).map((s) => ({ ...s }));
      const first = await trainer.step({ samples, groups });
      let last = first;
      for (let i = 0; i < 25; i++) last = await trainer.step({ samples, groups });
      assert.ok(gap(last.rl!.logProbs) > gap(first.rl!.logProbs) + 0.2);
      if (form === 'grpo') assert.ok(last.rl!.clipShare >= 0 && last.rl!.clipShare <= 1);
    });

  test('rlWeight 0 leaves the update of a batch without groups', async () => {
    const random = randomSource(10);
    const samples = randomSamples(random, 16, H);
    const groups = [randomGroup(random, H, 6)];
    const a = await (await fresh()).step({ samples, groups }, { rlWeight: 0 });
    const b = await (await fresh()).step({ samples });
    assert.ok(Math.abs(a.gradNorm - b.gradNorm) < 1e-4 * b.gradNorm, `${a.gradNorm} ${b.gradNorm}`);
  });

  test('selection takes half from the top of the beam, and for DPO the best and some below the median', () => {
    const candidates = Array.from({ length: 100 }, (_, rank) => ({ rank, advantage: -rank }));
    const grpo = selectGrpoCandidates(candidates, randomSource(1));
    assert.equal(grpo.length, 16);
    assert.equal(grpo.filter((c) => c.rank < 50).length, 8);
    assert.equal(new Set(grpo.map((c) => c.rank)).size, 16);
    assert.equal(
      selectGrpoCandidates(candidates.slice(0, 52), randomSource(1)).filter((c) => c.rank < 50).length,
      14,
    );
    assert.equal(selectGrpoCandidates(candidates.slice(0, 3), randomSource(1)).length, 3);
    const dpo = selectDpoCandidates(candidates.toReversed(), randomSource(1));
    assert.equal(dpo.length, 5);
    assert.equal(dpo[0]!.rank, 0);
    assert.ok(dpo.slice(1).every((c) => c.rank >= 50));
    assert.deepEqual(selectDpoCandidates([{ advantage: 1 }, { advantage: 1 }], randomSource(1)), []);
  });
});

describe('state', () => {
  test('a resumed run is bit for bit the run that went on', async () => {
    const trainer = await fresh();
    const random = randomSource(12);
    const batches = Array.from({ length: 8 }, (_, i) => ({
      samples: randomSamples(random, 16, H),
      groups: i % 3 === 2 ? [randomGroup(random, H, 6)] : [],
    }));
    for (const batch of batches.slice(0, 4)) await trainer.step(batch);
    const saved = structuredClone(await trainer.state());
    const rl = { form: 'grpo', maxGroups: 3, candidatesPerGroup: 6 } as const;
    const resumed = await create({ rl, seed: 99 });
    await resumed.restore(saved);
    assert.equal(resumed.steps, 4);
    for (const batch of batches.slice(4)) {
      const { stepMs: _a, ...went } = await trainer.step(batch);
      const { stepMs: _b, ...again } = await resumed.step(batch);
      assert.deepEqual(again, went);
    }
    assert.deepEqual(await resumed.state(), await trainer.state());
  });

  test('a state of another model is refused and changes nothing', async () => {
    const trainer = await fresh();
    const before = await trainer.state();
    const refused = (pattern: RegExp) => (e: unknown) => e instanceof StateError && pattern.test(e.message);
    const other = await create({ numCodes: { ...NUM_CODES, product_card: [25, 24, 32] } });
    await assert.rejects(
      trainer.restore(await other.state()),
      refused(/numCodes.product_card.1 = 25, this trainer 24/),
    );
    const missing = structuredClone(before);
    missing.tensors.delete('head.level2');
    await assert.rejects(trainer.restore(missing), refused(/nothing for head.level2/));
    await assert.rejects(trainer.restore({ ...before, scalars: {} }), refused(/no valid step/));
    assert.deepEqual(await trainer.state(), before);
  });

  test('reward groups need `rl`, and after close every call says so', async () => {
    const trainer = await create();
    const random = randomSource(14);
    const batch = { samples: randomSamples(random, 1, H), groups: [randomGroup(random, H, 2)] };
    await assert.rejects(trainer.step(batch), /created without `rl`/);
    await trainer.close();
    await assert.rejects(trainer.state(), /training thread has ended/);
  });
});

test('the item tower alone learns at its share of the rate', async () => {
  const moved = async (itemTowerRate: number): Promise<Map<string, Float64Array>> => {
    const trainer = await create({ optimizer: { warmupSteps: 0, learningRate: 1e-2, itemTowerRate } });
    const before = (await trainer.state()).tensors;
    await trainer.step({ samples: randomSamples(randomSource(21), 16, H) });
    const after = (await trainer.state()).tensors;
    const names = [...before.keys()].filter((name) => after.has(`m.${name}`));
    return new Map(
      names.map((name) => [name, Float64Array.from(after.get(name)!, (x, i) => x - before.get(name)![i]!)]),
    );
  };
  const [whole, third] = [await moved(1), await moved(0.3)];
  const tower = [...whole.keys()].filter((name) => name.startsWith('item.'));
  assert.ok(tower.length > 5 && tower.length < whole.size, `${tower.length} of ${whole.size} parameters`);
  for (const [name, changes] of whole) {
    const share = tower.includes(name) ? 0.3 : 1;
    assert.ok(
      changes.some((x) => x !== 0),
      `${name} has moved`,
    );
    changes.forEach((x, i) => {
      // weights are float32
      assert.ok(Math.abs(third.get(name)![i]! - share * x) < 1e-6, `${name}[${i}]`);
    });
  }
});

test('item vectors have length 1 and tell items apart', async () => {
  const trainer = await fresh();
  const items = randomSamples(randomSource(13), 20, H).map((s) => s.item);
  items[3]!.hashes[1] = hashFeature('seller', 'another');
  const { dim, vectors } = await trainer.embedItems(items);
  assert.equal(vectors.length, 20 * dim);
  for (let i = 0; i < 20; i++)
    assert.ok(Math.abs(Math.hypot(...vectors.subarray(i * dim, (i + 1) * dim)) - 1) < 1e-5);
});
