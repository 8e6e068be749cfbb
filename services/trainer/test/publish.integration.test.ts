/** Published models, fencing of a stalled trainer, and waiting for codebooks. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { itemTensors, sidLayout } from '@onemall/features';
import { loadItemTower, loadPolicy, loadRanker } from '@onemall/learning';
import { writeCodebook } from '@onemall/quantization';
import { FolderArtifactStore, isHeldBack, SeededRandom } from '@onemall/service-kit';
import { startTestStack, type TestStack, waitFor } from '@onemall/testkit';
import {
  checkpointAt,
  newestCheckpoint,
  newFolder,
  openWorld,
  readAll,
  samplesFrom,
  startTrainer,
  untilGauge,
  type World,
} from './preloaded.ts';
import { codebook, itemName, liveSids, NUM_CODES, SCENARIOS, sidOf } from './synthetic.ts';

let stack: TestStack;
let world: World;
const early = samplesFrom(0, 1_500);
/** Added while the first trainer of the fencing test is stalled. */
const late = samplesFrom(5_000, 1_500);
const positives = [...early, ...late].filter((s) => s.firstPositive).length;
const EVERY = 10;
const env = {
  ONEMALL_CHECKPOINT_EVERY_STEPS: String(EVERY),
  ONEMALL_PUBLISH_EVERY_STEPS: String(EVERY),
  ONEMALL_PUBLISH_EVERY_MS: '3600000',
  ONEMALL_CHECKPOINT_EVERY_MS: '3600000',
  ONEMALL_BEAM_WIDTHS: '8',
  ONEMALL_EGPM_MIN_EXPOSURES: '200',
  ONEMALL_EGPM_MIN_BUYS: '5',
  // clicks of these samples fall by chance
  ONEMALL_RANKER_MIN_RANK_CORRELATION: '-1',
  ONEMALL_LOSS_SPIKE_FACTOR: '0',
};

before(async () => {
  stack = await startTestStack();
  world = await openWorld(stack);
  await world.addSamples(early);
});
after(async () => {
  await world?.close();
  await stack?.stop();
});

const published = async () => (await readAll(world.io, 'policy-versions')).map((r) => r.value!);

test('both models are published from durable checkpoints and load', async (t) => {
  const folder = await newFolder();
  t.after(() => folder.remove());
  const artifacts = new FolderArtifactStore(path.join(folder.path, 'artifacts'));
  for (const model of ['retriever', 'ranker'] as const) {
    const trainer = await startTrainer(world, folder.path, { ...env, ONEMALL_MODEL: model });
    await untilGauge(trainer, 'training_steps', 3 * EVERY);
    await waitFor(async () => (await published()).some((p) => p.model === model.toUpperCase()), {
      timeoutMs: 60_000,
      what: `a published ${model}`,
    });
    assert.equal(await trainer.stop(), 0);
    const versions = (await published()).filter((p) => p.model === model.toUpperCase());
    const newest = versions.at(-1)!;
    assert.match(newest.policyVersion, new RegExp(`^${newest.step}-[0-9a-f]{12}$`));
    const files = await artifacts.get({ uri: newest.uri, sha256: newest.sha256 });
    assert.ok(Number.isFinite(newest.metrics.loss));
    if (model === 'retriever') {
      const policy = await loadPolicy(files);
      assert.equal(policy.manifest.policyVersion, newest.policyVersion);
      assert.deepEqual([...policy.manifest.scenarios].sort(), [...SCENARIOS]);
      await policy.close();
    } else {
      const ranker = await loadRanker(files);
      assert.ok(Object.values(ranker.manifest.egpmScale).every((scale) => scale > 0));
      await ranker.close();
    }
  }
});

test('a stalled trainer that wakes up after a second one started is fenced and ends with code 1', async (t) => {
  const [first, second] = [await newFolder(), await newFolder()];
  t.after(() => Promise.all([first.remove(), second.remove()]));
  const artifacts = { ONEMALL_ARTIFACTS_URI: path.join(first.path, 'artifacts') };
  const stalled = await startTrainer(world, first.path, { ...env, ...artifacts });
  await untilGauge(stalled, 'training_samples', 1);
  const before = await published();
  await waitFor(async () => (await published()).length > before.length, {
    timeoutMs: 60_000,
    what: 'a publication of the first trainer',
  });
  process.kill(stalled.pid, 'SIGSTOP');

  const owner = await startTrainer(world, second.path, { ...env, ...artifacts });
  await untilGauge(owner, 'training_steps', EVERY);
  process.kill(stalled.pid, 'SIGCONT');
  await world.addSamples(late);
  assert.equal((await stalled.exited).code, 1);
  assert.match(stalled.logTail(100), /FencedError|fenced/i);
  // the owner goes on with the new samples
  await untilGauge(owner, 'training_samples', positives);
  assert.equal(await owner.stop(), 0);
});

test('a policy made worse stays unpublished, a gauge and the log say so, and the one in use goes on', async (t) => {
  const own = await openWorld(stack);
  const folder = await newFolder();
  t.after(async () => {
    await folder.remove();
    await own.close();
  });
  const gated = {
    ...env,
    ONEMALL_RL_MODE: 'off',
    ONEMALL_HELD_BACK_FRACTION: '0.2',
    ONEMALL_GATE_REQUESTS: '90',
    ONEMALL_GATE_MIN_REQUESTS: '20',
    ONEMALL_PUBLISH_EVERY_STEPS: '40',
  };
  const trained = samplesFrom(0, 4_500);
  const count = trained.filter((s) => s.firstPositive && !isHeldBack(s.exposure.requestId, 0.2)).length;
  await own.addSamples(trained);
  const good = await startTrainer(own, folder.path, gated);
  await untilGauge(good, 'training_samples', count);
  await untilGauge(good, 'beam_recall', 0.01);
  assert.equal((await good.status()).values.training_samples, count, 'held-back samples do not train');
  assert.equal(await good.stop(), 0);
  const versions = async () => (await readAll(own.io, 'policy-versions')).map((r) => r.value!);
  const before = await versions();
  assert.ok(before.length >= 1);

  await own.addSamples(samplesFrom(10_000, 2_000));
  const worse = await startTrainer(own, folder.path, { ...gated, ONEMALL_LEARNING_RATE: '0.5' });
  await untilGauge(worse, 'policies_refused', 1);
  const { values } = await worse.status();
  assert.equal(values.policy_refused, 1);
  assert.ok(values.beam_recall! < values.beam_recall_published! - 0.05, JSON.stringify(values));
  assert.match(worse.logTail(1_000), /new models are held to the published one/);
  assert.match(
    worse.logTail(1_000),
    /not published, the policy in use goes on: beam_recall.* a fall of more than/,
  );
  await waitFor(
    async () => (await readAll(own.io, 'training-metrics')).some((r) => r.value!.values.policy_refused === 1),
    { timeoutMs: 60_000, what: 'the refusal on training-metrics' },
  );
  assert.equal(await worse.stop(), 0);

  // every first code has SIDs in each scenario, while a pair of codes has one SID or none
  const figures = (await readAll(own.io, 'training-metrics'))
    .map((r) => r.value!.values)
    .filter((v) => v.sid_accuracy_masked_1 !== undefined);
  assert.ok(figures.length > 0);
  for (const of of figures) {
    assert.equal(of.sid_accuracy_masked_1, of.sid_accuracy_1);
    assert.ok(of.sid_accuracy_masked_2! >= of.sid_accuracy_2!, JSON.stringify(of));
    assert.equal(of.sid_accuracy_masked_3, 1);
  }
  assert.deepEqual(await versions(), before);
});

test('with a policy the vectors of its item tower go to item-embeddings: open rooms each time, items in turn', async (t) => {
  const own = await openWorld(stack);
  const folder = await newFolder();
  t.after(async () => {
    await folder.remove();
    await own.close();
  });
  const product = (i: number) => itemName('product_card', i);
  const room = (i: number) => itemName('live_stream', i);
  await own.send([
    ...[0, 1, 2, 3].map((i) => catalogued(product(i), 'product_card', i)),
    ...[0, 1, 2].map((i) => catalogued(room(i), 'live_stream', i)),
    catalogued('elsewhere', 'radio', 1),
    // room 2 has closed
    {
      topic: 'live-sids',
      key: `${room(2)}:1`,
      value: { ...liveSids()[2]!, sellingItemIds: [], validFromMs: 5, sourceOffset: 900 },
    },
  ]);
  await own.addSamples(samplesFrom(0, 400));
  const trainer = await startTrainer(own, folder.path, { ...env, ONEMALL_ITEM_VECTORS_PER_POLICY: '2' });
  const written = async () =>
    (await readAll(own.io, 'item-embeddings')).map(({ key, value }) => ({ key, value }));
  await untilGauge(trainer, 'item_vectors', 4);
  // an item in turn after the first two; one that is gone; a restart begins the turns anew
  await own.send([{ topic: 'items', key: product(0), value: null }]);
  await own.addSamples(samplesFrom(1_000, 800));
  await waitFor(async () => (await written()).some((w) => w.value === null), {
    timeoutMs: 90_000,
    what: 'a tombstone for the item that is gone',
  });
  await waitFor(async () => (await written()).some((w) => w.key === product(3)), {
    timeoutMs: 90_000,
    what: 'the vector of the last item',
  });
  assert.equal(await trainer.stop(), 0);

  const all = await written();
  const versions = new Map(
    (await readAll(own.io, 'policy-versions')).map((r) => [r.value!.policyVersion, r.value!]),
  );
  const artifacts = new FolderArtifactStore(path.join(folder.path, 'artifacts'));
  assert.deepEqual(
    [...new Set(all.map((w) => w.key))].sort(),
    [room(0), room(1), product(0), product(1), product(2), product(3)].sort(),
    'no closed room, no item of a scenario that the model does not know',
  );
  // a policy that was published when the trainer was already stopping has none yet
  const newest = [...versions.values()].findLast(({ policyVersion }) =>
    all.some((w) => w.value?.policyVersion === policyVersion),
  )!;
  const tower = await loadItemTower(await artifacts.get(newest));
  const layout = sidLayout(tower.manifest.scenarios, tower.manifest.numCodes);
  const mine = all.filter((w) => w.value?.policyVersion === newest.policyVersion);
  assert.ok(
    [room(0), room(1)].every((id) => mine.some((w) => w.key === id)),
    'the open rooms with each policy',
  );
  for (const { key, value } of mine) {
    const i = Number(key.slice(key.lastIndexOf('-') + 1));
    const live = value!.scenario === 'live_stream';
    const { scenario, category, tags, priceCents, sellerId } = catalogued(key, value!.scenario, i).value;
    const features = { category, tags, priceCents, sellerId, validFromMs: 0 };
    const sellingItemIds = live ? [product(i)] : [];
    const item = { scenario, features: { ...features, sellingItemIds }, sid: sidOf(scenario, i) };
    const [expected] = [await tower.embed([itemTensors(item, () => sidOf('product_card', i), { layout })])];
    assert.equal(value!.vector.length, tower.dim);
    value!.vector.forEach((x, d) => {
      assert.ok(Math.abs(x - expected[d]!) < 1e-5, key);
    });
  }
  await tower.close();
});

/** A record of the items topic. */
const catalogued = (itemId: string, scenario: string, i: number) => ({
  topic: 'items' as const,
  key: itemId,
  value: {
    ...{ itemId, scenario, validFromMs: 0, title: itemId, category: `cat${i % 5}`, tags: [`tag${i % 7}`] },
    ...{ priceCents: 100 + i, sellerId: `s${i % 9}`, productId: null, contentVideo: false, embedding: null },
  },
});

test('a new retriever begins as the centroids of its codebooks, and names a codebook that it cannot read', async (t) => {
  const own = await openWorld(stack);
  const folder = await newFolder();
  t.after(async () => {
    await folder.remove();
    await own.close();
  });
  const fromContent = { ...env, ONEMALL_CONTENT_START: 'true', ONEMALL_CHECKPOINT_EVERY_STEPS: '1' };
  await own.addSamples(samplesFrom(0, 300));
  const without = await startTrainer(own, folder.path, fromContent);
  assert.equal((await without.exited).code, 1);
  assert.match(without.logTail(50), /codebooks\/live_stream\/1/);

  const artifacts = new FolderArtifactStore(path.join(folder.path, 'artifacts'));
  const dim = 8;
  const random = new SeededRandom(11);
  const centroids = Float32Array.from({ length: NUM_CODES[0] * dim }, () => random.normal());
  // three families of alike codes: 0, 3, 6, .. belong together
  for (let i = 3 * dim; i < centroids.length; i++)
    centroids[i] = centroids[i - 3 * dim]! + 0.1 * centroids[i]!;
  for (const scenario of SCENARIOS) {
    const level = { kind: 'kmeans' as const, numCodes: NUM_CODES[0], centroids };
    const files = writeCodebook({
      ...{ scenario, version: 1, numCodes: NUM_CODES, dim, cutoffMs: 0 },
      levels: [level, level, level],
    });
    const stored = await artifacts.put(`codebooks/${scenario}/1`, files);
    await own.send([{ topic: 'codebooks', key: scenario, value: { ...codebook(scenario), ...stored } }]);
  }
  const trainer = await startTrainer(own, folder.path, fromContent);
  await untilGauge(trainer, 'training_steps', 1);
  assert.equal(await trainer.stop(), 0);
  const [first] = await artifacts.list('checkpoints/retriever');
  const { tensors } = await checkpointAt(artifacts, first!);
  const { rows, offsets } = sidLayout(SCENARIOS, Object.fromEntries(SCENARIOS.map((s) => [s, NUM_CODES])));
  const table = tensors.get('sid.level1')!;
  const width = table.length / rows[0];
  for (const scenario of SCENARIOS) {
    const row = (code: number) => {
      const at = (offsets.get(scenario)![0] + code) * width;
      return table.subarray(at, at + width);
    };
    // one step has moved them a little
    assert.ok(cosine(row(9), row(12)) > 0.9, `${scenario}: ${cosine(row(9), row(12))}`);
    assert.ok(cosine(row(9), row(13)) < 0.8, `${scenario}: ${cosine(row(9), row(13))}`);
  }
});

const cosine = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, x, i) => sum + x * b[i]!, 0) / Math.hypot(...a) / Math.hypot(...b);

test('a loss spike ends the process with the reason and keeps the last good checkpoint', async (t) => {
  const folder = await newFolder();
  t.after(() => folder.remove());
  const trainer = await startTrainer(world, folder.path, {
    ...env,
    ONEMALL_CHECKPOINT_EVERY_STEPS: '1',
    // any loss is a spike after the third step
    ONEMALL_LOSS_SPIKE_FACTOR: '0.001',
    ONEMALL_LOSS_GUARD_GRACE_STEPS: '3',
  });
  assert.equal((await trainer.exited).code, 1);
  assert.match(trainer.logTail(50), /Step 4: loss .* is more than 0.001 times its running mean/);
  assert.equal((await newestCheckpoint(folder.path, 'retriever')).checkpoint.progress.step, 3);
});

test('a corrupt checkpoint is named, the one before is used, and every sample still counts once', async (t) => {
  const folder = await newFolder();
  t.after(() => folder.remove());
  const first = await startTrainer(world, folder.path, env);
  await untilGauge(first, 'training_steps', 3 * EVERY);
  assert.equal(await first.stop(), 0);
  const before = await newestCheckpoint(folder.path, 'retriever');
  const tensors = path.join(folder.path, 'artifacts', before.uri, 'tensors.bin');
  await writeFile(tensors, before.tensorBytes.subarray(4));

  const second = await startTrainer(world, folder.path, env);
  await untilGauge(second, 'training_samples', positives);
  assert.equal(await second.stop(), 0);
  assert.match(second.logTail(1_000), /is corrupt: its sha256 is .* falling back to the one before/);
  const { progress } = (await newestCheckpoint(folder.path, 'retriever')).checkpoint;
  assert.equal(progress.samples, positives);
});

test('without codebooks the retriever waits, says for which, and stops at once when asked', async (t) => {
  const empty = await openWorld(stack, { codebooks: ['product_card'] });
  const folder = await newFolder();
  t.after(async () => {
    await folder.remove();
    await empty.close();
  });
  const trainer = await startTrainer(empty, folder.path, env);
  await untilGauge(trainer, 'codebooks_missing', 2);
  assert.match(trainer.logTail(50), /waiting for codebooks/);
  assert.equal(await trainer.stop(), 0);
});
