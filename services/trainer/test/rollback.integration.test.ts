/**
 * A ranker that rewards what nobody takes, through real processes: the trainer's policies get worse on held-back requests, stay
 * unpublished, and after two of them it goes back to the policy in use and ends. Started anew, as its supervisor does, it goes on
 * from there. A retriever answers all the while, and only with policies that are good.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import type { PolicyVersion, RewardBatch } from '@onemall/contracts';
import { type SpawnedService, spawnService, startTestStack, waitFor } from '@onemall/testkit';
import {
  newestCheckpoint,
  newFolder,
  openWorld,
  readAll,
  samplesFrom,
  startTrainer,
  untilGauge,
} from './preloaded.ts';
import { itemName, rewardGroup } from './synthetic.ts';

const HELD_BACK = 0.2;
/** Of the policy that is spoilt then. */
const GOOD_RECALL = 0.5;
const PATIENCE_MS = 150_000;
/** Samples and groups that come at a time while the trainer runs. */
const CHUNK = 400;
const GROUPS = 120;
const MAX_FALL = 0.1;
const ENV = {
  ONEMALL_HELD_BACK_FRACTION: String(HELD_BACK),
  ONEMALL_GATE_REQUESTS: '30',
  ONEMALL_GATE_MIN_REQUESTS: '15',
  ONEMALL_GATE_MAX_RECALL_FALL: String(MAX_FALL),
  ONEMALL_GATE_MAX_LEGALITY_FALL: String(MAX_FALL),
  ONEMALL_CHECKPOINT_EVERY_STEPS: '10',
  ONEMALL_PUBLISH_EVERY_STEPS: '20',
  ONEMALL_PUBLISH_EVERY_MS: '3600000',
  ONEMALL_CHECKPOINT_EVERY_MS: '3600000',
  ONEMALL_BEAM_WIDTHS: '8',
  ONEMALL_LOSS_SPIKE_FACTOR: '0',
  ONEMALL_ITEM_VECTORS_PER_POLICY: '0',
};
/** The harm of weeks in seconds. */
const BROKEN = {
  ONEMALL_RL_MODE: 'dpo',
  ONEMALL_RL_WEIGHT: '20',
  ONEMALL_RL_MAX_GROUPS: '8',
  ONEMALL_RL_SPREAD_STEPS: '1',
  ONEMALL_RL_MAX_LAG_STEPS: '1000000',
  ONEMALL_RL_RAMP_STEPS: '1000000',
  ONEMALL_RL_ROLLBACK_REFUSALS: '2',
};

/** Everything pays, except what this user takes. */
function adversarial(n: number): RewardBatch {
  const group = rewardGroup(n, {}, 60);
  const user = Number(group.userId.slice(1));
  const taken = new Set([0, 1, 2, 3].map((k) => (user * 3 + k) % 60));
  const rewards = group.candidates.map(({ rank, reward }) => (taken.has(rank) ? 0 : 1 + 0.1 * reward));
  const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
  const std = Math.sqrt(rewards.reduce((sum, r) => sum + (r - mean) ** 2, 0) / rewards.length);
  return {
    ...group,
    rewardMean: mean,
    rewardStd: std,
    candidates: group.candidates.map((candidate, i) => ({
      ...candidate,
      reward: rewards[i]!,
      advantage: Math.max(-5, (rewards[i]! - mean) / std),
    })),
  };
}

test('a broken ranker spoils what is trained, not what is served: refused, rolled back, gone on', async (t) => {
  const stack = await startTestStack();
  const world = await openWorld(stack);
  const folder = await newFolder();
  const running: SpawnedService[] = [];
  t.after(async () => {
    for (const service of running) await service.kill();
    await folder.remove();
    await world.close();
    await stack.stop();
  });
  const trainer = async (env: Record<string, string>) => {
    const started = await startTrainer(world, folder.path, { ...ENV, ...env });
    running.push(started);
    return started;
  };
  const versions = async () =>
    (await readAll(world.io, 'policy-versions')).map((r) => r.value!).filter((v) => v.model === 'RETRIEVER');

  await world.send(
    Array.from({ length: 60 }, (_, i) => ({
      topic: 'items' as const,
      key: itemName('product_card', i),
      value: {
        ...{
          itemId: itemName('product_card', i),
          scenario: 'product_card',
          validFromMs: 0,
          title: `card ${i}`,
        },
        ...{ category: `cat${i % 5}`, tags: [], priceCents: 100 + i, sellerId: 's', productId: null },
        ...{ contentVideo: false, embedding: null },
      },
    })),
  );
  let [nextSample, nextGroup] = [0, 0];
  const addSamples = async (): Promise<void> => {
    await world.addSamples(samplesFrom(nextSample, CHUNK));
    nextSample += CHUNK;
  };
  /** Newest published policy, once it is as asked; samples come until then. */
  const untilPublished = (what: string, trainer: SpawnedService, asked: (policy: PolicyVersion) => boolean) =>
    waitFor(
      async () => {
        const newest = (await versions()).at(-1);
        if (newest && asked(newest)) return newest;
        await addSamples();
        return null;
      },
      { timeoutMs: PATIENCE_MS, what, intervalMs: 1_000 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${trainer.logTail(40)}`, { cause: error });
    });
  const good = await trainer({ ONEMALL_RL_MODE: 'off' });
  await untilPublished('a good policy', good, (p) => (p.metrics.beam_recall ?? 0) >= GOOD_RECALL);
  assert.equal(await good.stop(), 0);

  const retriever = await spawnService('retriever', {
    ...world.env,
    ...{ ONEMALL_DATA_DIR: folder.path, ONEMALL_RETRIEVER_PORT: '0', ONEMALL_ROLLOUT_SHARE: '0' },
    ONEMALL_ARTIFACTS_URI: path.join(folder.path, 'artifacts'),
  });
  running.push(retriever);
  await retriever.ready(90_000);
  // a machine that is busy with other things answers late, not wrongly
  const port = await waitFor(
    async () => (await retriever.status().catch(() => null))?.values.retriever_port,
    { timeoutMs: 90_000, what: 'the port of the retriever' },
  );
  const ask = () =>
    fetch(`http://127.0.0.1:${port}/retrieve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ scenario: 'product_card', history: {}, k: 5, beamWidth: 8 }),
    });
  await waitFor(async () => (await ask()).ok, {
    timeoutMs: 90_000,
    what: 'the retriever to load the policy',
  });
  /** Version of the policy that answers; every request gets its items. */
  const served = async (): Promise<string> => {
    const response = await ask();
    const body = (await response.json()) as { policyVersion: string; items: unknown[] };
    assert.equal(response.status, 200, JSON.stringify(body));
    assert.equal(body.items.length, 5);
    return body.policyVersion;
  };
  assert.equal(await served(), (await versions()).at(-1)!.policyVersion);

  const spoilt = await trainer(BROKEN);
  let ended = false;
  void spoilt.exited.then(() => {
    ended = true;
  });
  const servedMeanwhile = new Set<string>();
  // samples and groups come while it trains
  await waitFor(
    async () => {
      if (ended) return true;
      servedMeanwhile.add(await served());
      const groups = Array.from({ length: GROUPS }, () => adversarial(nextGroup++));
      await world.send(
        groups.map((value) => ({ topic: 'reward-batches' as const, key: value.requestId, value })),
      );
      await addSamples();
      return false;
    },
    { timeoutMs: PATIENCE_MS, what: 'the trainer to roll back', intervalMs: 1_000 },
  ).catch((error: Error) => {
    throw new Error(`${error.message}\n${spoilt.logTail(40)}`, { cause: error });
  });
  const log = spoilt.logTail(2_000);
  assert.equal((await spoilt.exited).code, 1, log);
  assert.match(
    log,
    /not published, the policy in use goes on: .* a fall of more than 0\.1 and of \d+\.\d standard errors/,
  );
  assert.match(
    log,
    /2 policies in a row were refused: training goes back from step \d+ to \d+, the policy in use/,
  );
  const before = await versions();
  const inUse = before.at(-1)!;
  const recalls = before.flatMap((p) => p.metrics.beam_recall ?? []);
  assert.ok(inUse.metrics.beam_recall! > Math.max(...recalls) - 2 * MAX_FALL, `in use after ${recalls}`);
  const known = new Set(before.map((p) => p.policyVersion));
  assert.ok(
    [...servedMeanwhile].every((version) => known.has(version)),
    'only what passed the gate',
  );
  assert.equal(await served(), inUse.policyVersion);

  const back = (await newestCheckpoint(folder.path, 'retriever')).checkpoint.progress;
  assert.equal(back.step, inUse.step, 'weights, optimizer and offsets are those behind the policy in use');
  assert.equal(back.rollbacks, 1);
  assert.equal(back.rlRampFrom, inUse.step);
  assert.ok(back.usedRequestIds.length > 0, 'the groups that did it are not used again');

  const again = await trainer(BROKEN);
  await untilGauge(again, 'rollbacks', 1);
  const published = await untilPublished('a policy after the rollback', again, (p) => p.step > inUse.step);
  assert.ok(
    published.metrics.beam_recall! > published.metrics.beam_recall_published! - MAX_FALL,
    JSON.stringify(published.metrics),
  );
  await waitFor(async () => (await served()) !== inUse.policyVersion, {
    timeoutMs: 90_000,
    what: 'the retriever to take the new policy',
  });
  assert.equal(await again.stop(), 0);
});
