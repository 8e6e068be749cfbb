/** What the loss guard sees: of the retriever all three losses, in the loop every step; and what it says where it sees nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, StageMeter } from '@onemall/service-kit';
import { openRetrieverLearner } from '../src/adapters/retriever-learner.ts';
import type { SidTables } from '../src/adapters/sid-tables.ts';
import { trainerConfig } from '../src/config.ts';
import type { StepOutcome } from '../src/learner.ts';
import { type Training, trainOnStream } from '../src/pipeline.ts';
import { drawCandidates } from '../src/stages/choose-groups.ts';
import { freshLossGuard, guardLoss, IdleGuardNotice, LossGuardError } from '../src/stages/guard-loss.ts';
import { CODEBOOK_VERSION, NUM_CODES, rewardGroup, SCENARIOS, sample, sidOf } from './synthetic.ts';

const rules = { spikeFactor: 3, graceSteps: 5 };
/** The state after as many full batches with these losses. */
function after(steps: number, measured: Omit<StepOutcome, 'gradNorm' | 'stepMs'>, before = freshLossGuard) {
  let state = before;
  for (let i = 0; i < steps; i++) state = guardLoss(state, i, { ...measured, gradNorm: 1 }, rules, true);
  return state;
}
const calm = { loss: 8, contrastive: 2, rl: 0.1 };

test('the contrastive loss is held to its own mean, in full batches', () => {
  const state = after(10, calm);
  const spike = { ...calm, contrastive: 7, gradNorm: 1 };
  assert.throws(
    () => guardLoss(state, 11, spike, rules, true),
    /contrastive loss 7.0000 is more than 3 times its running mean 2.0000/,
  );
  assert.deepEqual(guardLoss(state, 11, spike, rules, false).contrastive, state.contrastive);
  // a contrast that is nearly won may multiply: a mean below 1 nat counts as 1
  const won = after(10, { ...calm, contrastive: 0.07 });
  assert.equal(guardLoss(won, 11, { ...calm, contrastive: 2.9, gradNorm: 1 }, rules, true).steps, 11);
  assert.throws(
    () => guardLoss(won, 11, { ...calm, contrastive: 3.1, gradNorm: 1 }, rules, true),
    /taken as 1/,
  );
});

test('the loss of reward groups stops training when ten steps that have some spike in a row, full or not', () => {
  const gradNorm = 1;
  const spike = { loss: 8, rl: 4, gradNorm };
  let state = after(10, calm);
  for (let i = 0; i < 9; i++) state = guardLoss(state, i, spike, rules, i % 2 === 0);
  // a step without groups says nothing, one with a usual loss ends the row
  const without = guardLoss(state, 20, { loss: 8, gradNorm }, rules, true);
  assert.throws(
    () => guardLoss(without, 21, spike, rules, false),
    /reward groups 4.0000 .* 10th time in a row/,
  );
  let ended = guardLoss(state, 20, { ...calm, gradNorm }, rules, true);
  for (let i = 0; i < 9; i++) ended = guardLoss(ended, i, spike, rules, false);
  assert.throws(() => guardLoss(ended, 30, spike, rules, false), LossGuardError);
  // spikes are no part of the mean that they are held to
  assert.ok(ended.rl!.mean! < 0.2, `${ended.rl!.mean}`);
  assert.equal(after(40, { ...calm, rl: -1 }).rl!.steps, 40);
});

test('a state of before contrast and reward groups were watched goes on', () => {
  const state = guardLoss({ mean: 8, steps: 300 }, 301, { ...calm, gradNorm: 1 }, rules, true);
  assert.deepEqual(state.contrastive, { mean: 2, steps: 1 });
  assert.throws(() => guardLoss(state, 302, { ...calm, loss: 30, gradNorm: 1 }, rules, true), /loss 30/);
});

test('a guard that sees no full batch is told of once', () => {
  const notice = new IdleGuardNotice();
  const said = (steps: number, full: boolean) =>
    Array.from({ length: steps }, () => notice.after(full)).filter(Boolean).length;
  assert.equal(said(99, false) + said(1, true) + said(99, false), 0, 'full ones come now and then');
  assert.equal(said(1, false), 1);
  assert.equal(said(5, true) + said(500, false), 0);
});

test('the retriever gives the guard its contrastive loss, and that of its reward groups', async (t) => {
  const byScenario = <V>(value: V) => Object.fromEntries(SCENARIOS.map((s) => [s, value]));
  const codebooks = { codebookVersions: byScenario(CODEBOOK_VERSION), numCodes: byScenario(NUM_CODES) };
  const tables = {
    sidOf: (itemId: string) => sidOf(itemId.slice(0, itemId.indexOf('-')), Number(itemId.split('-')[1])),
    existing: () => ({ childrenAlong: () => [[], [], []].map((codes) => Int32Array.from(codes)) }),
  } as unknown as SidTables;
  const config = trainerConfig({ ONEMALL_TRAINER_PRESET: 'tiny' });
  const log = createLogger('trainer', 'silent');
  const learner = await openRetrieverLearner(config, SCENARIOS, codebooks, tables, new StageMeter('t'), log);
  t.after(() => learner.close());
  const batch = learner.encode(Array.from({ length: 16 }, (_, n) => sample(n)))!;
  const alone = await learner.step(batch, [], 1);
  // in-batch contrast of 16 that nobody has learnt
  assert.ok(alone.contrastive! > 1 && alone.contrastive! < 6, `${alone.contrastive}`);
  assert.equal(alone.rl, undefined);

  const groups = [rewardGroup(1), rewardGroup(2)];
  const { rl } = await learner.step(batch, groups, 1);
  // The rollouts were made by a policy that knew nothing, as this one does: ratios of about 1.
  const advantages = groups.flatMap((g) =>
    drawCandidates(g, { ...codebooks, maxLagSteps: 1, form: 'grpo' }, config.seed).map((c) => c.advantage),
  );
  const expected = -advantages.reduce((a, b) => a + b, 0) / advantages.length;
  assert.ok(Math.abs(rl! - expected) < 0.2, `${rl}, ${expected}`);
});

/** The loop over steps with these outcomes, in batches of `samples` of the 4 that a batch can hold; it stops at their end. */
async function loop(outcomes: readonly Partial<StepOutcome>[], samples: number): Promise<string[]> {
  const warnings: string[] = [];
  const stopping = new AbortController();
  const nothing = async () => {};
  let step = 0;
  const drawn = {
    ranges: [],
    cursor: 0,
    samples: Array.from({ length: samples }, (_, n) => ({ sample: sample(n) })),
  };
  const never = 1e9;
  const training = {
    ...{ clock: { nowMs: () => 0 }, stopping: stopping.signal, tables: null, rewards: null, gate: null },
    config: {
      ...trainerConfig({}),
      ...{
        checkpointEverySteps: never,
        checkpointEveryMs: never,
        publishEverySteps: never,
        publishEveryMs: never,
      },
      lossGuardGraceSteps: rules.graceSteps,
    },
    log: { info: () => {}, warn: (_: unknown, text: string) => warnings.push(text) },
    learner: {
      batchSize: 4,
      encode: (batch: unknown) => batch,
      step: async () => {
        if (step === outcomes.length - 1) stopping.abort();
        return { loss: 8, gradNorm: 1, stepMs: 1, ...outcomes[step++] };
      },
      save: nothing,
    },
    samples: { drawer: { openSamples: samples, draw: () => drawn }, madeRoom: () => {}, news: nothing() },
    journal: { append: nothing, forgetUpTo: nothing },
    checkpoints: { save: async () => ({ uri: '' }), oldestStep: async () => 0 },
    release: { failed: new Promise<never>(() => {}), busy: true, refusals: 0, settled: nothing },
    report: { stepDone: () => {}, newest: () => ({}) },
    ...{ replay: [], settings: '', identity: {}, keepSidsMs: 0 },
    progress: { step: 0, samples: 0, guard: freshLossGuard, lossFirst: null },
  } as unknown as Training;
  await trainOnStream(training);
  return warnings;
}

test('the loop shows each loss to the guard, and says once that no batch is full', async () => {
  const calmSteps = Array.from({ length: 250 }, () => calm);
  assert.deepEqual(await loop(calmSteps, 4), []);
  const warnings = await loop(calmSteps, 3);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /no batch is full: the loss guard looks for NaN alone/);

  const contrastive = [...calmSteps.slice(0, 20), { ...calm, contrastive: 9 }, calm];
  await assert.rejects(loop(contrastive, 4), /Step 21: contrastive loss/);
  const rl = [...calmSteps.slice(0, 20), ...Array.from({ length: 12 }, () => ({ ...calm, rl: 50 }))];
  await assert.rejects(loop(rl, 3), /Step 30: loss of the reward groups/);
});
