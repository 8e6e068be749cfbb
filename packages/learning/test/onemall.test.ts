import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sidLayout } from '@onemall/features';
import { OrtSessions } from '../src/engine/ort-sessions.ts';
import { compileForward, compileGradient, compileOptimizer } from '../src/engine/program.ts';
import { nextCode, type RetrievalSizes, retrievalPass } from '../src/models/onemall.ts';
import { retrievalFeeds } from '../src/models/onemall-feeds.ts';
import { retrievalPresets } from '../src/models/presets.ts';
import { checkGradients } from './gradients.ts';
import { randomGroup, randomSamples, randomSource } from './synthetic.ts';

const numCodes = { product_card: [3, 4, 2], short_video: [2, 3, 3] } as const;
const layout = sidLayout(['product_card', 'short_video'], numCodes);
const micro: RetrievalSizes = {
  preset: {
    ...retrievalPresets.tiny,
    dim: 4,
    heads: 2,
    ffnDim: 6,
    experts: 3,
    capacityFactor: 1,
    queries: 2,
    queryBlocks: 2,
    itemQueries: 1,
    itemHashRows: 70,
    contrastAt: 's3',
  },
  layout,
  batchSize: 3,
  historyLength: 3,
};

test('gradients of the whole model, with reward groups, agree with finite differences of the float64 reference', async () => {
  const random = randomSource(31);
  for (const [form, queries, absorb] of [
    ['grpo', 2, true],
    ['dpo', 2, true],
    ['grpo', 0, true],
    ['dpo', 0, false],
  ] as const) {
    const rl = { form, groups: 2, perGroup: 3, epsilon: 0.2, epsilonHigh: 0.28, dpoLambda: 0.3 };
    const normalizer = form === 'dpo' ? 'trie' : 'codes';
    const sizes = { ...micro, preset: { ...micro.preset, queries, absorb }, rl, normalizer } as const;
    const children = [
      { codes: Int32Array.of(0, 1), logWeights: Float32Array.of(0.5, -1) },
      { codes: Int32Array.of(1, 2) },
      { codes: Int32Array.of(0) },
    ] as const;
    const samples = randomSamples(random, 2, 3, layout).map((s) => ({ ...s, children }));
    const group = randomGroup(random, 3, 3, layout);
    // ratios near 1 and inside the clip, where the surrogate is smooth
    const candidates = group.candidates.map((c) => ({ ...c, refLogProb: -3.2, children }));
    const feeds = retrievalFeeds(samples, [{ ...group, candidates }], sizes, {
      logQ: Float32Array.of(-1, -2),
      rlScale: 0.5,
      rlNormalizer: 1,
    });
    const checked = await checkGradients((ops) => retrievalPass(ops, sizes).loss, {
      feeds,
      perParameter: form === 'grpo' && queries > 0 ? 2 : 1,
      tolerance: 5e-4,
    });
    assert.ok(checked > (queries > 0 ? 60 : 45), `${checked} elements`);
  }
});

test('a softmax runs over the codes of the scenario only', async () => {
  const forward = compileForward((ops) => ({ logProbs: nextCode(ops, micro, 0, 1) }));
  const { graph } = compileGradient((ops) => {
    const { loss } = retrievalPass(ops, micro);
    return { loss, metrics: {} };
  });
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxGradNorm: 1 };
  const sessions = new OrtSessions(
    compileOptimizer(graph, adamw, () => 1),
    3,
    1,
  );
  await sessions.addForward('next', forward);
  const random = randomSource(1);
  const context = Float32Array.from({ length: 6 * 4 }, () => random.next());
  for (const [scenario, from, to] of [
    [0, 0, 3],
    [1, 3, 5],
  ] as const) {
    const { logProbs } = await sessions.forward('next', { context, scenario: Int32Array.of(scenario) });
    const inside = Array.from(logProbs!).slice(from, to);
    const outside = Array.from(logProbs!).filter((_, i) => i < from || i >= to);
    assert.ok(Math.abs(inside.reduce((sum, p) => sum + Math.exp(p), 0) - 1) < 1e-5);
    assert.ok(outside.every((p) => p < -1e8));
  }
  await sessions.close();
});

test('the paper presets have the sizes of its table 1', () => {
  const billions = (name: keyof typeof retrievalPresets, active: boolean): number => {
    const { dim, layers, ffnDim, experts, activeExperts } = retrievalPresets[name];
    const used = active ? activeExperts : experts;
    return (layers * (8 * dim * dim + used * 2 * dim * ffnDim)) / 1e9;
  };
  // decoder alone: two attentions of 4 D^2 each, experts of 2 D F each
  assert.ok(Math.abs(billions('paper-0.05b', false) - 0.034) < 0.01);
  assert.ok(Math.abs(billions('paper-0.1b', false) - 0.067) < 0.01);
  assert.ok(Math.abs(billions('paper-0.5b-a0.1b', false) - 0.44) < 0.05);
  assert.ok(Math.abs(billions('paper-0.5b-a0.1b', true) - 0.1) < 0.01);
  assert.ok(Math.abs(billions('paper-1.3b-a0.1b', false) - 0.84) < 0.1);
  assert.equal(retrievalPresets['paper-1.3b-a0.1b'].experts, 24);
});
