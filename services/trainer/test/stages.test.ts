import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BadRecordError, type RewardBatch } from '@onemall/contracts';
import { ConfigError, isHeldBack } from '@onemall/service-kit';
import fc from 'fast-check';
import { trainerConfig } from '../src/config.ts';
import { checkSample } from '../src/stages/check-sample.ts';
import {
  byCreation,
  drawCandidates,
  dropsGroup,
  type GroupRules,
  groupsForStep,
  stepOfPolicy,
} from '../src/stages/choose-groups.ts';
import { describeItem } from '../src/stages/describe-item.ts';
import { freshLossGuard, guardLoss } from '../src/stages/guard-loss.ts';
import { parseManifest, replayable, type StepManifest } from '../src/stages/manifest.ts';
import { StepWindow } from '../src/stages/measure-steps.ts';
import { type EgpmState, egpmScales, observeEgpm, winsorize } from '../src/stages/scale-egpm.ts';
import { rankerLeavesOut, retrieverLeavesOut } from '../src/stages/select-sample.ts';
import { ExistingSids } from '../src/state/existing-sids.ts';
import { CODEBOOK_VERSION, NUM_CODES, rewardGroup, SCENARIOS, sample, sidOf } from './synthetic.ts';

const byScenario = <V>(value: V): Record<string, V> => Object.fromEntries(SCENARIOS.map((s) => [s, value]));
const rules = {
  codebookVersions: byScenario(CODEBOOK_VERSION),
  numCodes: byScenario(NUM_CODES),
  heldBackFraction: 0,
  trainShare: 1,
  seed: 1,
};
const groupRules: GroupRules = { ...rules, maxLagSteps: 100, form: 'grpo' };
const dpoRules: GroupRules = { ...groupRules, form: 'dpo' };

test('bad samples are refused with the reason that belongs to them', () => {
  const good = sample(1);
  const known = new Set<string>(SCENARIOS);
  checkSample(good.exposure.userId, good, known);
  const reason = (over: Parameters<typeof sample>[1], key = good.exposure.userId): string => {
    try {
      checkSample(key, sample(1, over), known);
    } catch (error) {
      assert.ok(error instanceof BadRecordError);
      return error.reason;
    }
    return 'none';
  };
  const exposure = good.exposure;
  assert.equal(reason({}), 'none');
  assert.equal(reason({}, 'someone-else'), 'KEY_MISMATCH');
  assert.equal(reason({ exposure: { ...exposure, itemId: '' } }), 'EMPTY_ID');
  assert.equal(reason({ exposure: { ...exposure, scenario: 'radio' } }), 'UNKNOWN_SCENARIO');
  assert.equal(reason({ exposure: { ...exposure, requestTimeMs: -1 } }), 'TIME_OUT_OF_RANGE');
  assert.equal(reason({ buyValueCents: -5 }), 'NEGATIVE_VALUE');
  assert.equal(reason({ sid: { ...sidOf('product_card', 1), c2: -1 } }), 'NEGATIVE_VALUE');
  assert.equal(
    reason({ exposure: { ...exposure, requestFeatures: { ints: [], floats: [1, Number.NaN] } } }),
    'NOT_A_NUMBER',
  );
});

test('the retriever trains first positives whose item has a SID, whatever its codebook version', () => {
  const positive = sample(1, { firstPositive: true });
  const { scenario } = positive.exposure;
  assert.equal(retrieverLeavesOut(positive, rules), null);
  const why = (over: Parameters<typeof sample>[1]) =>
    retrieverLeavesOut(sample(1, { firstPositive: true, ...over }), rules);
  assert.equal(why({ firstPositive: false }), 'not_first_positive');
  assert.equal(why({ sid: null }), 'no_sid');
  // Its own codes are looked up when the batch is made: those of another version may lie outside.
  const other = sidOf(scenario, 3, CODEBOOK_VERSION + 1);
  assert.equal(why({ sid: { ...other, c3: NUM_CODES[2] } }), null);
  assert.equal(why({ sid: sidOf('elsewhere', 3) }), 'other_scenario');
  assert.equal(why({ sid: { ...sidOf(scenario, 3), c3: NUM_CODES[2] } }), 'sid_out_of_range');
  assert.equal(why({ kind: 'CLICK' }), null);
});

test('the ranker trains finals only; held-back requests train neither model', () => {
  assert.equal(rankerLeavesOut(sample(1, { firstPositive: false }), rules), null);
  assert.equal(rankerLeavesOut(sample(1, { kind: 'CLICK' }), rules), 'not_final');
  const fraction = 0.3;
  for (let n = 0; n < 200; n++) {
    const s = sample(n, { firstPositive: true });
    const expected = isHeldBack(s.exposure.requestId, fraction) ? 'held_back' : null;
    assert.equal(retrieverLeavesOut(s, { ...rules, heldBackFraction: fraction }), expected);
    assert.equal(rankerLeavesOut(s, { ...rules, heldBackFraction: fraction }), expected);
  }
});

test('a share of the samples trains, by seeded hash; held-back ones are not thinned out', () => {
  const all = Array.from({ length: 2_000 }, (_, n) => sample(n, { firstPositive: true }));
  const thin = { ...rules, heldBackFraction: 0.1, trainShare: 0.4 };
  const why = (rules: typeof thin) => all.map((s) => retrieverLeavesOut(s, rules));
  const count = (reason: string | null) => why(thin).filter((r) => r === reason).length;
  assert.equal(count('held_back'), all.filter((s) => isHeldBack(s.exposure.requestId, 0.1)).length);
  const share = count(null) / (count(null) + count('sampled_out'));
  assert.ok(Math.abs(share - 0.4) < 0.04, `${share} of the samples train`);
  assert.deepEqual(why(thin), why(thin));
  assert.notDeepEqual(why({ ...thin, seed: 2 }), why(thin));
  assert.deepEqual(
    all.map((s) => rankerLeavesOut(s, thin)),
    why(thin),
  );
});

test('an item that is not known yet is described by the price of its exposure', () => {
  const s = sample(1);
  assert.deepEqual(describeItem(s), { features: s.item, known: true });
  const { features, known } = describeItem({ ...s, item: null });
  assert.equal(known, false);
  assert.equal(features.priceCents, s.exposure.priceCents);
});

test('groups of other versions, old policies or equal rewards are dropped', () => {
  const why = (over: Partial<RewardBatch>, step = 50) => dropsGroup(rewardGroup(1, over), groupRules, step);
  assert.equal(why({ policyVersion: '20-aaaaaaaaaaaa' }), null);
  assert.equal(why({ scenario: 'radio' }), 'unknown_scenario');
  assert.equal(why({ codebookVersion: 9 }), 'other_codebook_version');
  assert.equal(why({ policyVersion: '20-aaaaaaaaaaaa' }, 120), null);
  assert.equal(why({ policyVersion: '20-aaaaaaaaaaaa' }, 121), 'policy_too_old');
  assert.equal(why({ policyVersion: 'a-version-of-another-trainer' }), 'policy_too_old');
  assert.equal(why({ policyVersion: '51-aaaaaaaaaaaa' }), 'policy_of_the_future');
  assert.equal(why({ rewardStd: 1e-7 }), 'equal_rewards');
  assert.equal(why({ rewardStd: Number.NaN }), 'equal_rewards');
  const { candidates } = rewardGroup(1);
  const broken = candidates.map((c, i) => (i === 0 ? c : { ...c, advantage: Number.POSITIVE_INFINITY }));
  assert.equal(why({ candidates: broken }), 'too_few_candidates');
  // one item among SIDs without: they share the lowest reward
  const alone = candidates.map((c, i) => ({ ...c, advantage: i === 9 ? 5 : -0.1 }));
  assert.equal(why({ candidates: alone }), null);
  assert.equal(dropsGroup(rewardGroup(1, { candidates: alone }), dpoRules, 50), 'none_below_median');
  assert.deepEqual(drawCandidates(rewardGroup(1, { candidates: alone }), dpoRules, 5), []);
  assert.equal(dropsGroup(rewardGroup(1), dpoRules, 50), null);
  assert.equal(stepOfPolicy('120-abc'), 120);
});

test('16 candidates: 8 of the top 50 and 8 of the rest, filled up from the other side', () => {
  const drawn = drawCandidates(rewardGroup(1, {}, 200), groupRules, 5);
  assert.equal(drawn.length, 16);
  assert.equal(drawn.filter((c) => c.rank < 50).length, 8);
  assert.deepEqual(drawCandidates(rewardGroup(1, {}, 200), groupRules, 5), drawn);
  assert.notDeepEqual(drawCandidates(rewardGroup(1, {}, 200), groupRules, 6), drawn);
  const short = drawCandidates(rewardGroup(2, {}, 52), groupRules, 5);
  assert.equal(short.filter((c) => c.rank >= 50).length, 2);
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 120 }), fc.nat(1000), (n, seed) => {
      const some = drawCandidates(rewardGroup(seed, {}, n), groupRules, seed);
      assert.equal(some.length, Math.min(16, n));
      assert.equal(new Set(some.map((c) => c.rank)).size, some.length);
    }),
    { seed: 21 },
  );
});

test('candidates outside the codebook or without a finite advantage never train', () => {
  const { candidates } = rewardGroup(1, {}, 60);
  const spoilt = candidates.map((c, i) =>
    i % 3 === 0 ? { ...c, c2: NUM_CODES[1] } : i % 3 === 1 ? { ...c, advantage: Number.NaN } : c,
  );
  for (const rulesOfForm of [groupRules, dpoRules])
    for (const c of drawCandidates(rewardGroup(1, { candidates: spoilt }), rulesOfForm, 3))
      assert.equal(c.rank % 3, 2);
});

test('DPO: the greatest advantage first, the others from below the median', () => {
  fc.assert(
    fc.property(fc.integer({ min: 3, max: 120 }), fc.nat(1000), (n, seed) => {
      const group = rewardGroup(seed, {}, n);
      const [best, ...others] = drawCandidates(group, dpoRules, seed);
      const advantages = group.candidates.map((c) => c.advantage).sort((a, b) => b - a);
      assert.equal(best!.advantage, advantages[0]);
      assert.ok(others.length >= 1 && others.length <= 4);
      for (const other of others) assert.ok(other.advantage <= advantages[n >> 1]!);
    }),
    { seed: 22 },
  );
});

test('a burst of groups is spread over steps, and every group has its turn', () => {
  fc.assert(
    fc.property(
      fc.nat(60),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 10 }),
      (n, max, spread) => {
        let waiting = n;
        let steps = 0;
        while (waiting > 0) {
          const taken = groupsForStep(waiting, max, spread);
          assert.ok(taken >= 1 && taken <= max);
          waiting -= taken;
          steps++;
        }
        assert.ok(steps <= n);
      },
    ),
    { seed: 23 },
  );
  const place = (createdMs: number, partition: number, offset: number) => ({
    ...{ requestId: 'r', partition, offset },
    group: rewardGroup(1, { createdMs }),
  });
  const ordered = [place(1, 3, 0), place(2, 0, 4), place(2, 0, 5), place(2, 1, 0)];
  assert.deepEqual(ordered.toReversed().sort(byCreation), ordered);
});

test('NaN and spikes stop training, a falling loss does not', () => {
  const guard = { spikeFactor: 3, graceSteps: 5 };
  let state = freshLossGuard;
  for (let step = 1; step <= 20; step++)
    state = guardLoss(state, step, { loss: 8 - step * 0.2, gradNorm: 1 }, guard, true);
  assert.throws(() => guardLoss(state, 21, { loss: Number.NaN, gradNorm: 1 }, guard, true), /loss is NaN/);
  assert.throws(
    () => guardLoss(state, 21, { loss: 2, gradNorm: Number.POSITIVE_INFINITY }, guard, true),
    /gradNorm/,
  );
  assert.throws(() => guardLoss(state, 21, { loss: 30, gradNorm: 1 }, guard, true), /more than 3 times/);
  assert.equal(guardLoss(state, 21, { loss: 30, gradNorm: 1 }, { ...guard, spikeFactor: 0 }, true).steps, 21);
  const early = guardLoss(freshLossGuard, 1, { loss: 1, gradNorm: 1 }, guard, true);
  assert.equal(guardLoss(early, 2, { loss: 30, gradNorm: 1 }, guard, true).steps, 2);
});

test('a partial batch is checked for NaN only, and does not move the mean that full batches are held to', () => {
  const guard = { spikeFactor: 3, graceSteps: 5 };
  let state = freshLossGuard;
  assert.deepEqual(guardLoss(state, 1, { loss: 50, gradNorm: 1 }, guard, false), freshLossGuard);
  for (let step = 1; step <= 20; step++)
    state = guardLoss(state, step, { loss: 4, gradNorm: 1 }, guard, true);
  let after = state;
  for (let step = 21; step <= 60; step++)
    after = guardLoss(after, step, { loss: step % 2 ? 1_000 : 0.001, gradNorm: 1 }, guard, false);
  assert.deepEqual(after, state);
  assert.equal(guardLoss(after, 61, { loss: 5, gradNorm: 1 }, guard, true).steps, 21);
  assert.throws(() => guardLoss(after, 61, { loss: 13, gradNorm: 1 }, guard, true), /more than 3 times/);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => guardLoss(after, 61, { loss: bad, gradNorm: 1 }, guard, false), /Step 61: loss/);
    assert.throws(() => guardLoss(after, 61, { loss: 1, gradNorm: bad }, guard, false), /gradNorm/);
  }
});

const manifest = (step: number, from: number, to: number, settings = 's'): StepManifest => ({
  ...{ step, settings, cursor: 0, numSamples: to - from, groups: [], tableOffsets: {} },
  ranges: [{ partition: 0, from, to }],
});

test('only manifests that continue the checkpoint are replayed', () => {
  const at = new Map([[0, 100]]);
  const steps = (list: StepManifest[], after = 4) => replayable(list, after, at, 's').map((m) => m.step);
  assert.deepEqual(steps([manifest(5, 100, 110), manifest(6, 110, 115)]), [5, 6]);
  assert.deepEqual(steps([manifest(5, 100, 110), manifest(7, 110, 115)]), [5]);
  assert.deepEqual(steps([manifest(5, 99, 110)]), []);
  assert.deepEqual(steps([manifest(5, 100, 110, 'other')]), []);
  assert.deepEqual(steps([manifest(5, 100, 110), manifest(6, 111, 115)]), [5]);
  // a step written twice: the later line counts
  assert.deepEqual(steps([manifest(5, 1, 2), manifest(5, 100, 110)]), [5]);
});

test('a torn or foreign journal line is no manifest', () => {
  const line = JSON.stringify(manifest(5, 100, 110));
  assert.deepEqual(parseManifest(line), manifest(5, 100, 110));
  for (let cut = 0; cut < line.length; cut++) assert.equal(parseManifest(line.slice(0, cut)), null);
  assert.equal(parseManifest('{"step":1}'), null);
  assert.equal(parseManifest('null'), null);
});

test('sliding figures weigh samples and forget old steps', () => {
  const window = new StepWindow(2);
  assert.equal(window.figures(), null);
  window.add({ a: { samples: 100, hits: [100, 100, 100], ntp: [9, 9, 9] } });
  window.add({ a: { samples: 1, hits: [1, 0, 0], ntp: [1, 1, 1] } });
  window.add({
    a: { samples: 1, hits: [0, 0, 0], ntp: [2, 2, 2] },
    b: { samples: 2, hits: [2, 1, 0], ntp: [0, 0, 3] },
  });
  assert.deepEqual(window.figures(), {
    ...{ samples: 4, loss: (3 + 6 + 2 * 3) / 4, levelLoss: [3 / 4, 3 / 4, 9 / 4] },
    accuracy: [3 / 4, 1 / 4, 0],
    ...{ maskedSamples: 0, maskedAccuracy: null },
  });
  assert.deepEqual(window.figures('b'), {
    ...{ samples: 2, loss: 3, levelLoss: [0, 0, 3] },
    accuracy: [1, 0.5, 0],
    ...{ maskedSamples: 0, maskedAccuracy: null },
  });
  assert.deepEqual(window.scenarios(), ['a', 'b']);
  const resumed = new StepWindow(2);
  resumed.restore(JSON.parse(JSON.stringify(window.saved())));
  const masked = { maskedSamples: 3, maskedHits: [3, 2, 1] } as const;
  for (const each of [window, resumed])
    each.add({ b: { samples: 4, hits: [1, 1, 1], ntp: [1, 2, 3], ...masked } });
  assert.deepEqual(resumed.figures(), window.figures());
  // over those alone that were scored so
  assert.deepEqual(window.figures()?.maskedAccuracy, [1, 2 / 3, 1 / 3]);
  assert.equal(window.figures('a')?.maskedAccuracy, null);
});

test('the codes that go on to an existing SID are those of all SIDs with the codes before', () => {
  const counts = [5, 4, 6] as const;
  const code = (k: number) => fc.nat(k - 1);
  const anySid = fc.record({
    scenario: fc.constantFrom('a', 'b', 'unknown'),
    ...{ c1: code(counts[0]), c2: code(counts[1]), c3: code(counts[2]) },
  });
  fc.assert(
    fc.property(fc.array(anySid, { maxLength: 60 }), anySid, (sids, target) => {
      const existing = new ExistingSids(sids, { a: counts, b: counts });
      const same = sids.filter((s) => s.scenario === target.scenario && s.scenario !== 'unknown');
      const sorted = (codes: number[]) => [...new Set(codes)].sort((x, y) => x - y);
      const expected = [
        sorted(same.map((s) => s.c1)),
        sorted(same.filter((s) => s.c1 === target.c1).map((s) => s.c2)),
        sorted(same.filter((s) => s.c1 === target.c1 && s.c2 === target.c2).map((s) => s.c3)),
      ];
      assert.deepEqual(
        existing.childrenAlong(target).map((codes) => [...codes]),
        expected,
      );
    }),
  );
});

test('the EGPM scale is set once, so that mean pEgpm is 1.25 times mean pCtr', () => {
  const egpmRules = { minExposures: 100, minBuys: 3 };
  const row = (i: number, pCtr = 0.1) => ({
    ...{ scenario: 'a', bought: i % 10 === 0, buyValueCents: 500 + i },
    ...{ pCtr, pCtcvr: 0.01, buyValueGivenBuyCents: 600 },
  });
  let state: EgpmState = {};
  const before = structuredClone(state);
  const first = observeEgpm(state, [row(0)], egpmRules);
  assert.deepEqual(state, before, 'the given state stays as it was');
  state = first;
  for (let i = 1; i < 99; i++) state = observeEgpm(state, [row(i)], egpmRules);
  assert.deepEqual(egpmScales(state), {});
  state = observeEgpm(state, [row(99)], egpmRules);
  const scale = egpmScales(state).a!;
  assert.ok(Math.abs((0.01 * 600) / scale - 1.25 * 0.1) < 1e-9);
  for (let i = 100; i < 300; i++) state = observeEgpm(state, [row(i, 0.9)], egpmRules);
  assert.equal(egpmScales(state).a, scale);
});

test('one huge order is cut to the 99.5th percentile of what was paid', () => {
  const observed = Array.from({ length: 1_000 }, (_, i) => ({
    ...{ scenario: 'a', bought: true, buyValueCents: i + 1 },
    ...{ pCtr: 0.1, pCtcvr: 0.01, buyValueGivenBuyCents: 100 },
  }));
  const state = observeEgpm({}, observed, { minExposures: 10_000, minBuys: 1 });
  assert.equal(winsorize(1_000_000, state.a), 995);
  assert.equal(winsorize(12, state.a), 12);
  assert.equal(winsorize(12, undefined), 12);
});

test('a lag limit that a reference policy outgrows is refused, whichever of the two periods is long', () => {
  assert.equal(trainerConfig({ ONEMALL_BEAM_WIDTHS: '64,500' }).beamWidths.join(), '64,500');
  assert.throws(
    () => trainerConfig({ ONEMALL_RL_MAX_LAG_STEPS: '1999' }),
    /rlMaxLagSteps is 1999, expected at least 2 x \(referenceSyncSteps \+ publishEverySteps\) = 2000/,
  );
  assert.throws(() => trainerConfig({ ONEMALL_REFERENCE_SYNC_STEPS: '501' }), /= 2002/);
  assert.throws(() => trainerConfig({ ONEMALL_PUBLISH_EVERY_STEPS: '501' }), /= 2002/);
  trainerConfig({ ONEMALL_REFERENCE_SYNC_STEPS: '501', ONEMALL_RL_MODE: 'off' });
  assert.throws(() => trainerConfig({ ONEMALL_ROLLOUT_SHARE: '0' }), /rolloutShare is 0.*set rlMode to off/);
  assert.throws(() => trainerConfig({ ONEMALL_MODEL: 'both' }), /ONEMALL_MODEL/);
});

test('fewer remembered requestIds than groups can be used within the lag limit are refused', () => {
  const config = (remembered: string, mode = 'grpo') =>
    trainerConfig({
      ...{ ONEMALL_RL_MODE: mode, ONEMALL_RL_MAX_GROUPS: '3', ONEMALL_RL_MAX_LAG_STEPS: '2000' },
      ONEMALL_RL_REMEMBERED_REQUESTS: remembered,
    });
  assert.equal(config('6000').rlRememberedRequests, 6_000);
  assert.throws(
    () => config('5999'),
    (e: unknown) =>
      e instanceof ConfigError &&
      /rlRememberedRequests is 5999, expected at least rlMaxGroups x rlMaxLagSteps = 6000/.test(e.message),
  );
  assert.equal(config('1', 'off').rlRememberedRequests, 1);
});
