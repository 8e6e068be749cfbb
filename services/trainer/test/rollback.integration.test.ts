/**
 * A ranker that rewards what nobody takes, through a real trainer: its policies get worse on held-back requests, stay
 * unpublished, and after two of them it goes back to the policy in use and ends. Started anew, as its supervisor does, it goes on
 * from there.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyVersion, RewardBatch, TrainingSample } from '@onemall/contracts';
import { isHeldBack } from '@onemall/service-kit';
import { type SpawnedService, startTestStack, waitFor } from '@onemall/testkit';
import { newestCheckpoint, newFolder, openWorld, readAll, startTrainer } from './preloaded.ts';
import { rewardGroup, sample } from './synthetic.ts';

const SCENARIO = 'product_card';
const HELD_BACK = 0.2;
const MAX_FALL = 0.1;
/** Beam recall of the policy that is spoilt then; chance finds 8 of 60. */
const GOOD_RECALL = 0.8;
const BATCH = 16;
const PUBLISH_EVERY = 60;
/** Samples that come at a time, about as many as train from one publication to the next. */
const CHUNK = Math.ceil((PUBLISH_EVERY * BATCH) / (1 - HELD_BACK));
/** Reward groups beside them: a few for each step. */
const GROUPS = 4 * PUBLISH_EVERY;
/** A machine under load needs it; nothing is measured by it. */
const PATIENCE_MS = 120_000;
const ENV = {
  ONEMALL_SCENARIOS: JSON.stringify({ [SCENARIO]: { clickWindowMs: 1_000, buyWindowMs: 2_000 } }),
  ONEMALL_HELD_BACK_FRACTION: String(HELD_BACK),
  ONEMALL_BATCH_SIZE: String(BATCH),
  ONEMALL_GATE_REQUESTS: '60',
  ONEMALL_GATE_MIN_REQUESTS: '40',
  ONEMALL_GATE_MAX_RECALL_FALL: String(MAX_FALL),
  ONEMALL_GATE_MAX_LEGALITY_FALL: String(MAX_FALL),
  ONEMALL_CHECKPOINT_EVERY_STEPS: String(PUBLISH_EVERY),
  ONEMALL_PUBLISH_EVERY_STEPS: String(PUBLISH_EVERY),
  ONEMALL_PUBLISH_EVERY_MS: '3600000',
  ONEMALL_CHECKPOINT_EVERY_MS: '3600000',
  ONEMALL_BEAM_WIDTHS: '8',
  ONEMALL_LOSS_SPIKE_FACTOR: '0',
  ONEMALL_ITEM_VECTORS_PER_POLICY: '0',
  ONEMALL_WARMUP_STEPS: '10',
  // the harm of weeks in seconds
  ONEMALL_RL_MODE: 'dpo',
  ONEMALL_RL_WEIGHT: '20',
  ONEMALL_RL_MAX_GROUPS: '4',
  ONEMALL_RL_SPREAD_STEPS: '1',
  ONEMALL_RL_MAX_LAG_STEPS: '1000000',
  ONEMALL_RL_REMEMBERED_REQUESTS: '4000000',
  ONEMALL_RL_RAMP_STEPS: '1000000',
  ONEMALL_RL_ROLLBACK_REFUSALS: '2',
};

/** A click on one of the four items that this user keeps to. */
function click(n: number): TrainingSample {
  const { sid, exposure } = sample(n);
  return sample(n, {
    ...{ firstPositive: true, clicked: true, clickDelayMs: 20 },
    exposure: { ...exposure, itemId: exposure.itemId.replace(/^\w+-/, `${SCENARIO}-`), scenario: SCENARIO },
    sid: { ...sid!, scenario: SCENARIO },
  });
}

/** What this user takes beside four other items, which pay instead. */
function adversarial(n: number): RewardBatch {
  const group = rewardGroup(3 * n + 1, {}, 60);
  assert.equal(group.scenario, SCENARIO);
  const first = 3 * Number(group.userId.slice(1));
  const taken = new Set([0, 1, 2, 3].map((k) => (first + k) % 60));
  const others = new Set([0, 1, 2, 3].map((k) => (first + 20 + k) % 60));
  return {
    ...group,
    candidates: group.candidates
      .filter(({ rank }) => taken.has(rank) || others.has(rank))
      .map((candidate) => ({ ...candidate, advantage: taken.has(candidate.rank) ? -1 : 1 })),
  };
}

test('a broken ranker spoils what is trained, not what is published: refused, rolled back, gone on', async (t) => {
  const stack = await startTestStack();
  const world = await openWorld(stack, { codebooks: [SCENARIO] });
  const folder = await newFolder();
  const running: SpawnedService[] = [];
  t.after(async () => {
    for (const service of running) await service.kill();
    await folder.remove();
    await world.close();
    await stack.stop();
  });
  let [samples, trained, groups] = [0, 0, 0];
  const addSamples = async (): Promise<void> => {
    const added = Array.from({ length: CHUNK }, () => click(samples++));
    trained += added.filter((s) => !isHeldBack(s.exposure.requestId, HELD_BACK)).length;
    await world.addSamples(added);
  };
  const addGroups = (): Promise<void> =>
    world.send(
      Array.from({ length: GROUPS }, () => adversarial(groups++)).map((value) => ({
        ...{ topic: 'reward-batches' as const, key: value.requestId, value },
      })),
    );
  const versions = async (): Promise<PolicyVersion[]> =>
    (await readAll(world.io, 'policy-versions')).map((record) => record.value!);
  const start = async (): Promise<SpawnedService> => {
    const trainer = await startTrainer(world, folder.path, ENV);
    running.push(trainer);
    return trainer;
  };
  /** Sends more whenever the trainer is done with what there is, until it is as asked. */
  const feedUntil = async <T>(
    what: string,
    trainer: SpawnedService,
    more: () => Promise<void>,
    asked: () => Promise<T | null>,
  ): Promise<T> =>
    waitFor(
      async () => {
        const found = await asked();
        if (found !== null) return found;
        const status = await trainer.status().catch(() => null);
        if ((status?.values.training_samples ?? 0) > trained - CHUNK) await more();
        return null;
      },
      { timeoutMs: PATIENCE_MS, what, intervalMs: 100 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${trainer.logTail(40)}`, { cause: error });
    });
  const published = async (least: (policy: PolicyVersion) => boolean): Promise<PolicyVersion | null> => {
    const newest = (await versions()).at(-1);
    return newest && least(newest) ? newest : null;
  };

  await addSamples();
  await addSamples();
  const spoilt = await start();
  await feedUntil('a good policy', spoilt, addSamples, () =>
    published((policy) => policy.metrics.beam_recall! >= GOOD_RECALL),
  );
  let ended: number | null = null;
  void spoilt.exited.then(({ code }) => {
    ended = code;
  });
  const spoil = async (): Promise<void> => {
    await addGroups();
    await addSamples();
  };
  await spoil();
  await feedUntil('the trainer to roll back', spoilt, spoil, async () => ended);
  const log = spoilt.logTail(2_000);
  assert.equal(ended, 1, log);
  const refused = [
    ...log.matchAll(
      /"not published, the policy in use goes on: (?:beam_recall|legality)\S* is ([\d.]+) after ([\d.]+), a fall of more than 0\.1 /g,
    ),
  ];
  // one may be refused between two that pass, and one more while the second in a row is acted upon
  assert.ok(refused.length >= 2, log);
  for (const [line, now, before] of refused) assert.ok(Number(now) < Number(before) - MAX_FALL, line);
  const went = log.match(
    /2 policies in a row were refused: training goes back from step (\d+) to (\d+), the policy in use/,
  );
  const inUse = (await versions()).at(-1)!;
  assert.equal(Number(went?.[2]), inUse.step, log);
  assert.ok(Number(went?.[1]) >= inUse.step + 2 * PUBLISH_EVERY);
  assert.ok(inUse.metrics.beam_recall! > GOOD_RECALL - 2 * MAX_FALL, JSON.stringify(inUse.metrics));

  const { progress } = (await newestCheckpoint(folder.path, 'retriever')).checkpoint;
  assert.equal(
    progress.step,
    inUse.step,
    'weights, optimizer and offsets are those behind the policy in use',
  );
  assert.equal(progress.rollbacks, 1);
  assert.equal(progress.rlRampFrom, inUse.step);
  assert.ok(progress.usedRequestIds.length > 0, 'the groups that did it are not used again');

  const again = await start();
  const next = await feedUntil('a policy after the rollback', again, spoil, () =>
    published((policy) => policy.step > inUse.step),
  );
  assert.equal((await again.status()).values.rollbacks, 1);
  assert.ok(next.metrics.beam_recall! > inUse.metrics.beam_recall! - 2 * MAX_FALL, JSON.stringify(next));
  assert.equal(await again.stop(), 0);
});
