/**
 * Rankers that teach nonsense: constant, noisy, adversarial. The loop of the trainer in small: groups of the reference policy,
 * steps, the gate; two refusals in a row roll back. What is published never falls by more than the gate allows. The same loop
 * without the gate is ruined by the adversarial one, so it is the gate that saves the policy.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sidLayout } from '@onemall/features';
import {
  createRetrievalTrainer,
  groupAdvantages,
  loadPolicy,
  type RetrievalTrainer,
  type RewardGroup,
  type TrainerState,
} from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { randomSamples, randomSource } from '../../../packages/learning/test/synthetic.ts';
import { gatePolicy } from '../src/stages/gate-policy.ts';
import { beamFinds, sidTrees } from '../src/stages/measure-recall.ts';
import { rlShare } from '../src/stages/plan-rollback.ts';

const SCENARIOS = ['product_card', 'short_video', 'live_stream'];
const NUM_CODES = Object.fromEntries(SCENARIOS.map((s) => [s, [8, 8, 8] as const]));
const LAYOUT = sidLayout(SCENARIOS, NUM_CODES);
const MAX_FALL = 0.1;
/** Steps between two publications, and publications. */
const ROUND = 10;
const ROUNDS = 6;
const GROUPS = 4;
const H = 6;
/** As the reward-scorer clamps it by default. */
const MAX_ADVANTAGE = 5;

type Ranker = (random: SeededRandom, isTarget: boolean) => number;
const rankers: Record<string, Ranker> = {
  constant: () => 0.5,
  noisy: (random) => random.next(),
  adversarial: (random, isTarget) => (isTarget ? 0 : 1 + 0.1 * random.next()),
};

const TREES = sidTrees(
  SCENARIOS.flatMap((scenario) =>
    Array.from({ length: 512 }, (_, i) => ({ scenario, c1: i >> 6, c2: (i >> 3) & 7, c3: i & 7 })),
  ),
);

for (const form of ['grpo', 'dpo'] as const)
  describe(`broken rankers teach by ${form}`, () => {
    const source = randomSource(1);
    const held = randomSamples(randomSource(99), 40, H, LAYOUT);
    let trainer: RetrievalTrainer;
    let base: { recall: number; state: TrainerState };

    /** Beam recall of the weights as they are. */
    async function recallNow(): Promise<number> {
      const policy = await loadPolicy(
        await trainer.exportPolicy({ policyVersion: 'p', codebookVersions: {}, beamWidths: [8] }),
      );
      let found = 0;
      for (const { request, target } of held)
        if (await beamFinds(policy, request, target, TREES.get(target.scenario)!, 5)) found++;
      await policy.close();
      return found / held.length;
    }

    before(async () => {
      trainer = await createRetrievalTrainer({
        preset: 'tiny',
        scenarios: SCENARIOS,
        numCodes: NUM_CODES,
        seed: 1,
        optimizer: { warmupSteps: 10 },
        rl: { form, maxGroups: GROUPS, candidatesPerGroup: 5 },
      });
      for (let i = 0; i < 160; i++) await trainer.step({ samples: randomSamples(source, 16, H, LAYOUT) });
      base = { recall: await recallNow(), state: await trainer.state() };
      assert.ok(base.recall > 0.5, `the base policy finds ${base.recall}`);
    });
    after(() => trainer.close());

    /** Groups of a round, o+ first, with the log-probabilities that the weights have now: the reference is synced each round. */
    async function groupsOf(rank: Ranker, random: SeededRandom): Promise<RewardGroup[]> {
      const groups = [];
      for (const sample of randomSamples(source, GROUPS * ROUND, H, LAYOUT)) {
        const draw = () => ({ c1: random.int(8), c2: random.int(8), c3: random.int(8) });
        const targets = [sample.target, draw(), draw(), draw(), draw()];
        const rewarded = groupAdvantages(
          targets.map((_, at) => rank(random, at === 0)),
          MAX_ADVANTAGE,
        );
        if (!rewarded) continue;
        const { tokenLogProbs } = await trainer.evaluate(
          targets.map((t) => ({ ...sample, target: { ...t, scenario: sample.target.scenario } })),
        );
        const candidates = targets.map(({ c1, c2, c3 }, at) => ({
          codes: [c1, c2, c3] as const,
          refLogProb: tokenLogProbs.subarray(3 * at, 3 * at + 3).reduce((a, b) => a + b, 0),
          advantage: rewarded.advantages[at]!,
        }));
        groups.push({
          request: sample.request,
          candidates: candidates.sort((a, b) => b.advantage - a.advantage),
        });
      }
      return groups;
    }

    /** Rounds of steps from the base policy on, each policy judged by the gate, or all of them published. */
    async function teach(rank: Ranker, gated: boolean) {
      const random = new SeededRandom(2);
      await trainer.restore(base.state);
      let published = base;
      let [refusals, rollbacks, taught] = [0, 0, 0];
      let rlRampFrom: number | undefined;
      for (let round = 0; round < ROUNDS; round++) {
        const groups = await groupsOf(rank, random);
        taught += groups.length;
        for (let i = 0; i < ROUND; i++) {
          const ramp = rlRampFrom === undefined ? {} : { rlRampFrom };
          // far more weight than the paper's 0.5: the harm of weeks in seconds
          const rlWeight = 10 * rlShare(ramp, trainer.steps + 1, 10_000);
          await trainer.step(
            { samples: randomSamples(source, 16, H, LAYOUT), groups: groups.splice(0, GROUPS) },
            { rlWeight },
          );
        }
        const recall = await recallNow();
        const limits = gated ? [{ figure: 'recall', maxFall: MAX_FALL }] : [];
        if (gatePolicy({ recall }, { recall: published.recall }, limits).length === 0) {
          published = { recall, state: await trainer.state() };
          refusals = 0;
        } else if (++refusals === 2) {
          await trainer.restore(published.state);
          rollbacks++;
          refusals = 0;
          rlRampFrom = trainer.steps;
        }
      }
      return { recall: published.recall, rollbacks, taught };
    }

    for (const [name, rank] of Object.entries(rankers))
      test(`what is published survives a ranker that is ${name}`, async () => {
        const { recall, rollbacks, taught } = await teach(rank, true);
        const least = base.recall - 2 * MAX_FALL;
        assert.ok(recall > least, `published ${recall} after ${base.recall}, ${rollbacks} rollbacks`);
        assert.equal(taught === 0, name === 'constant', 'equal rewards teach nothing, others do');
        assert.equal(rollbacks > 0, name !== 'constant', 'what the others teach is refused');
        if (name !== 'adversarial') return;
        const ungated = await teach(rank, false);
        assert.ok(ungated.recall < least, `without the gate it finds ${ungated.recall} after ${base.recall}`);
      });
  });
