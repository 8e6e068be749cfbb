/** Crashes on preloaded topics: the weights are those of an undisturbed run, every sample counts once. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startTestStack, type TestStack } from '@onemall/testkit';
import {
  newestCheckpoint,
  newFolder,
  openWorld,
  readAll,
  samplesFrom,
  startTrainer,
  untilGauge,
  type World,
} from './preloaded.ts';
import { rewardGroup, sample } from './synthetic.ts';

let stack: TestStack;
let world: World;
const samples = samplesFrom(0, 1_600);
const badKey = sample(90_000, { firstPositive: true });
const positives = samples.filter((s) => s.firstPositive).length;
const NUM_GROUPS = 40;

before(async () => {
  stack = await startTestStack();
  world = await openWorld(stack);
  await world.addSamples(samples.slice(0, 800));
  await world.send([
    { topic: 'training-samples', key: 'u1', valueBytes: Buffer.from('not a record') },
    { topic: 'training-samples', key: 'someone-else', value: badKey },
    ...Array.from({ length: NUM_GROUPS }, (_, n) => rewardGroup(n)).map((value) => ({
      topic: 'reward-batches' as const,
      key: value.requestId,
      value,
    })),
    // a copy of a group, and one of a codebook that this trainer does not know
    { topic: 'reward-batches', key: 'g3', value: rewardGroup(3) },
    { topic: 'reward-batches', key: 'g900', value: rewardGroup(900, { codebookVersion: 8 }) },
  ]);
  await world.addSamples(samples.slice(800));
});
after(async () => {
  await world?.close();
  await stack?.stop();
});

for (const { model, gauge, expected } of [
  { model: 'retriever', gauge: 'training_samples', expected: positives },
  { model: 'ranker', gauge: 'training_samples', expected: samples.length },
]) {
  const env = {
    ONEMALL_MODEL: model,
    ONEMALL_CHECKPOINT_EVERY_STEPS: '17',
    ONEMALL_CHECKPOINT_EVERY_MS: '3600000',
    ONEMALL_PUBLISH_EVERY_STEPS: '100000',
    ONEMALL_PUBLISH_EVERY_MS: '3600000',
    ONEMALL_RL_MAX_LAG_STEPS: '300000',
    ONEMALL_RL_REMEMBERED_REQUESTS: '600000',
    ONEMALL_LOSS_SPIKE_FACTOR: '0',
  };

  test(`${model}: after kill -9 at four moments the weights equal an undisturbed run's bit for bit`, async (t) => {
    const [calm, crashed] = [await newFolder(), await newFolder()];
    t.after(() => Promise.all([calm.remove(), crashed.remove()]));

    const undisturbed = await startTrainer(world, calm.path, env);
    await untilGauge(undisturbed, gauge, expected);
    assert.equal(await undisturbed.stop(), 0);

    // Before the first checkpoint, about the one at 17, long after it, near the end.
    for (const step of [3, 16, 18, 46]) {
      const killed = await startTrainer(world, crashed.path, env);
      await untilGauge(killed, 'training_steps', step);
      await killed.kill();
    }
    const resumed = await startTrainer(world, crashed.path, env);
    await untilGauge(resumed, gauge, expected);
    assert.equal(await resumed.stop(), 0);
    assert.match(resumed.logTail(1_000), /resuming from a checkpoint/);
    assert.match(resumed.logTail(1_000), /repeating the steps/);

    const want = await newestCheckpoint(calm.path, model);
    const got = await newestCheckpoint(crashed.path, model);
    assert.equal(got.checkpoint.progress.samples, expected);
    assert.equal(got.checkpoint.progress.step, want.checkpoint.progress.step);
    assert.deepEqual(got.checkpoint.progress.usedRequestIds, want.checkpoint.progress.usedRequestIds);
    assert.equal(got.checkpoint.progress.lossFirst, want.checkpoint.progress.lossFirst);
    assert.deepEqual(got.checkpoint.extra, want.checkpoint.extra);
    assert.equal(Buffer.compare(got.tensorBytes, want.tensorBytes), 0, 'weights and optimizer differ');
    if (model === 'retriever') {
      const used = want.checkpoint.progress.usedRequestIds;
      assert.deepEqual(used.toSorted(), Array.from({ length: NUM_GROUPS }, (_, n) => `g${n}`).sort());
    }
  });
}

test('bad samples are in dead-letters with their reason, and the rest was trained', async () => {
  const letters = (await readAll(world.io, 'dead-letters')).map((r) => r.value!);
  for (const service of ['trainer-retriever', 'trainer-ranker']) {
    const reasons = new Set(letters.filter((l) => l.service === service).map((l) => l.reason));
    assert.deepEqual([...reasons].sort(), ['KEY_MISMATCH', 'NOT_WIRE_FORMAT']);
  }
  assert.ok(letters.every((l) => l.topic.endsWith('training-samples')));
});
